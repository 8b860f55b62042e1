"""Launch of compiled kernels: a call updates many tensors, in several threads if they are large."""

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gradprix.rules.ops import BLOCK

from ._calls import kernel_address
from ._compile import Kernel
from ._hoisting import SplitRule
from ._passes import number_table

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

    def run(self, kernel: Any) -> None:
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

    def calls_by_row(self, kernel: Any) -> Integers:
        """Return for each row of constants the calls that update its tensors, `[rows, calls, 4]`; see `run_calls`.

        The tensors of a row must be adjacent.
        """
        if self._calls is None:
            self._calls = self._row_calls(kernel)[:, None]
        return self._calls

    def _row_calls(self, kernel: Kernel) -> Integers:
        bounds = np.searchsorted(self.chunks[:, 3], np.arange(len(self.constants) + 1))
        return _columns(kernel_address(kernel), self.address, bounds[:-1], bounds[1:])


class SequenceCall(KernelCall):
    """Reusable call of the kernels of a rule with reductions.

    Args:
        split_rule: the rule, split under its options.
        sizes: see `KernelCall`.
        rows: see `KernelCall`.
        pointers: see `KernelCall`.
        constants: see `KernelCall`.
        groups: for each tensor, the index of its group, ascending from 0.

    The caller may also write the scalar state into the columns of `numbers`, `[tensors, columns]`, and read it there.
    """

    def __init__(
        self,
        split_rule: SplitRule,
        sizes: Sequence[int],
        rows: Sequence[int],
        pointers: Integers,
        constants: NDArray[np.float64],
        groups: Sequence[int],
    ) -> None:
        super().__init__(sizes, rows, pointers, constants)
        lengths, self.rows = np.array(sizes, dtype=np.int64), np.array(rows, dtype=np.int64)
        self.first_tensors = np.searchsorted(groups, np.arange(groups[-1] + 2)).astype(np.int64)
        self.first_blocks = np.concatenate([[0], np.cumsum(-(-lengths // BLOCK))]).astype(np.int64)
        self.sums = np.empty((self.first_blocks[-1], len(split_rule.totals)))
        self.numbers = number_table(split_rule, sizes, groups)
        shared = [array.ctypes.data for array in (self.numbers, self.first_blocks, self.sums)]
        self.job = np.array([*self.job, *shared], dtype=np.int64)
        self.address = self.job.ctypes.data
        own = [array.ctypes.data for array in (self.first_tensors, self.rows, constants)]
        self.stage_job = np.array([0, 0, *own, *shared], dtype=np.int64)

    def run(self, kernel: Any) -> None:
        """Perform one optimizer step of every tensor; `kernel` is a `KernelSequence`."""
        for stage, run_pass in zip_longest(kernel.stages, kernel.passes):
            if stage is not None:
                self.stage_job[:2] = 0, len(self.first_tensors) - 1
                stage(self.stage_job.ctypes.data)
            if run_pass is not None:
                super().run(run_pass)

    def calls_by_row(self, kernel: Any) -> Integers:
        """Return for each row the calls that update its tensors; every row must be a group. See `KernelCall`."""
        if self._calls is None:
            calls, rows, address = [], np.arange(len(self.constants)), self.stage_job.ctypes.data
            for stage, run_pass in zip_longest(kernel.stages, kernel.passes):
                if stage is not None:
                    calls.append(_columns(kernel_address(stage), address, rows, rows + 1))
                if run_pass is not None:
                    calls.append(self._row_calls(run_pass))
            self._calls = np.stack(calls, axis=1)
        return self._calls


def _columns(kernel: int, job: int, first: Integers, stop: Integers) -> Integers:
    """Return calls of one kernel as `[calls, 4]`."""
    return np.column_stack([np.full_like(first, kernel), np.full_like(first, job), first, stop])


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
