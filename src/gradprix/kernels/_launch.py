"""Launch of compiled kernels: a call updates many tensors, in several threads if they are large."""

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from ._calls import kernel_address
from ._compile import Kernel

CHUNK = 16_384
"""Elements per chunk: small enough for the L1 cache, large enough to make the overhead negligible."""
LARGE = 32_768
"""Minimum number of elements per thread, as in torch; below, synchronization costs more than it saves."""
STORAGE_DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}
"""Parameter dtypes that kernels support, with their names."""

Integers = NDArray[np.int64]


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of computation and state for parameters of this dtype."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


class KernelCall:
    """Reusable kernel call for a set of tensors.

    Args:
        sizes: number of elements of each tensor.
        rows: for each tensor, the index of its row in `constants`.
        pointers: addresses of each tensor's arrays (parameter, gradient, state), `[tensors, arrays]`; the caller keeps
            the arrays alive while the kernel runs.
        constants: constants, `[rows, constants]`.

    The caller may write into `pointers` and `constants` between runs.
    """

    def __init__(
        self, sizes: Sequence[int], rows: Sequence[int], pointers: Integers, constants: NDArray[np.float64]
    ) -> None:
        chunks = [
            (n, start, min(CHUNK, size - start), rows[n])
            for n, size in enumerate(sizes)
            for start in range(0, size, CHUNK)
        ]
        self.max_threads = max(1, sum(sizes) // LARGE)
        self.pointers, self.constants = pointers, constants
        self.chunks = np.array(chunks, dtype=np.int64).reshape(-1, 4)
        addresses = [array.ctypes.data for array in (self.chunks, pointers, constants)]
        self.job = np.array([0, len(chunks), *addresses], dtype=np.int64)
        self.address = self.job.ctypes.data
        self._calls: Integers | None = None

    def run(self, kernel: Kernel) -> None:
        """Perform one optimizer step of every tensor."""
        self.job[:2] = 0, len(self.chunks)
        threads = min(torch.get_num_threads(), self.max_threads)
        if threads == 1:
            kernel(self.address)
        elif openmp := openmp_team():
            openmp(kernel, self.address, threads, 0)
        else:
            others = [thread_pool(threads - 1).submit(kernel, self.address) for _ in range(threads - 1)]
            kernel(self.address)
            for other in others:
                other.result()

    def calls_by_row(self, kernel: Kernel) -> Integers:
        """Return for each row of constants the call that updates its tensors, `[rows, 4]`; see `run_calls`.

        The tensors of a row must be adjacent.
        """
        if self._calls is None:
            bounds = np.searchsorted(self.chunks[:, 3], np.arange(len(self.constants) + 1))
            addresses = np.tile([kernel_address(kernel), self.address], (len(self.constants), 1))
            self._calls = np.column_stack([addresses, bounds[:-1], bounds[1:]])
        return self._calls


@cache
def openmp_team() -> Callable[[Kernel, int, int, int], None] | None:
    """Return a function that runs a kernel in torch's OpenMP threads.

    Torch's threads spin for a while after each task, waiting for the next one. Separate threads would compete with them
    for processors.

    Returns:
        The function; None if torch's OpenMP library is not compatible with GNU OpenMP, or after a fork.
    """
    if os.getpid() != LOADING_PID:
        return None  # threads do not survive a fork, and OpenMP would wait for them forever
    start = getattr(ctypes.CDLL(torch._C.__file__), "GOMP_parallel", None)
    if start is not None:
        start.argtypes, start.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return start


@lru_cache(maxsize=1)
def thread_pool(threads: int) -> ThreadPoolExecutor:
    """Return a thread pool, for use if torch's threads are not available."""
    return ThreadPoolExecutor(threads, thread_name_prefix="gradprix")


LOADING_PID = os.getpid()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=openmp_team.cache_clear)
    os.register_at_fork(after_in_child=thread_pool.cache_clear)
