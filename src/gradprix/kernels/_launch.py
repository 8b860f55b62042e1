"""Steps many tensors in one call of a compiled kernel, large work shared by a few threads."""

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from ._compile import Kernel

CHUNK = 16_384
"""Elements a chunk: small enough to stay in the first cache, large enough that a chunk costs nothing."""
LARGE = 32_768
"""Elements that are worth a thread of their own, as in torch; below, handing work over costs more than it saves."""
STORED = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}

Integers = NDArray[np.int64]


def wide(dtype: torch.dtype) -> torch.dtype:
    """What a parameter of this dtype is computed and remembered in."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


class Work:
    """A call of a kernel for a set of tensors, to be made again and again.

    Args:
        sizes: elements in each tensor.
        rows: which row of constants steps each tensor.
        pointers: addresses `[tensors, arrays]`, of tensors that the caller holds on to while it runs.
        constants: `[rows, constants]`.

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
        self.most = max(1, sum(sizes) // LARGE)
        self.pointers, self.constants = pointers, constants
        self.chunks = np.array(chunks, dtype=np.int64).reshape(-1, 4)
        addresses = [array.ctypes.data for array in (self.chunks, pointers, constants)]
        self.job = np.array([0, len(chunks), *addresses], dtype=np.int64)
        self.address = self.job.ctypes.data

    def run(self, kernel: Kernel) -> None:
        """Step every tensor once."""
        self.job[0] = 0
        threads = min(torch.get_num_threads(), self.most)
        if threads == 1:
            kernel(self.address)
        elif openmp := team():
            openmp(kernel, self.address, threads, 0)
        else:
            others = [pool(threads - 1).submit(kernel, self.address) for _ in range(threads - 1)]
            kernel(self.address)
            for other in others:
                other.result()


@cache
def team() -> Callable[[Kernel, int, int, int], None] | None:
    """What runs a function in a team of the threads of torch's own OpenMP, where that is GNU's or speaks its language.

    torch's threads keep their processors for a while after each task, waiting for the next: threads of our own would
    have to share with them.
    """
    if os.getpid() != HOME:
        return None  # threads do not survive a fork, and OpenMP would wait for them for ever
    start = getattr(ctypes.CDLL(torch._C.__file__), "GOMP_parallel", None)
    if start is not None:
        start.argtypes, start.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return start


@lru_cache(maxsize=1)
def pool(threads: int) -> ThreadPoolExecutor:
    """Threads of our own, where torch's cannot be had."""
    return ThreadPoolExecutor(threads, thread_name_prefix="gradprix")


HOME = os.getpid()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=team.cache_clear)
    os.register_at_fork(after_in_child=pool.cache_clear)
