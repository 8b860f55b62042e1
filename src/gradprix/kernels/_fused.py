"""Steps many tensors in one call of a compiled kernel, large work cut over a few threads."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from ._compile import Kernel

CHUNK = 16_384
"""Elements a chunk: small enough to stay in the first cache, large enough that a chunk costs nothing."""
LARGE = 262_144
"""Elements that are worth a thread of their own; below, handing work over costs more than it saves."""
STORED = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}

Integers = NDArray[np.int64]


class Work:
    """How a set of tensors is cut into chunks.

    Args:
        sizes: elements in each tensor.
        rows: which row of constants steps each tensor.
    """

    def __init__(self, sizes: Sequence[int], rows: Sequence[int]) -> None:
        self.elements = sum(sizes)
        chunks = [
            (n, start, min(CHUNK, size - start)) for n, size in enumerate(sizes) for start in range(0, size, CHUNK)
        ]
        table = np.array(chunks, dtype=np.int64).reshape(-1, 3)
        self.tensor, self.start, self.length = (np.ascontiguousarray(column) for column in table.T)
        self.rows = np.array(rows, dtype=np.int64)
        self.ends = np.cumsum(self.length)

    def run(self, kernel: Kernel, pointers: Integers, constants: NDArray[np.float64]) -> None:
        """Step every tensor once.

        Args:
            kernel: the compiled rule.
            pointers: addresses `[arrays, tensors]`, of tensors that the caller holds on to.
            constants: `[rows, constants]`.
        """
        given = (pointers, self.tensor, self.start, self.length, self.rows, constants)
        threads = min(torch.get_num_threads(), self.elements // LARGE)
        if threads <= 1:
            kernel(*given, 0, len(self.tensor))
            return
        shares = np.searchsorted(self.ends, self.elements * np.arange(1, threads) // threads)
        edges = [0, *(int(share) for share in shares), len(self.tensor)]
        others = pool(threads - 1)
        waiting = [others.submit(kernel, *given, a, b) for a, b in pairwise(edges[1:])]
        kernel(*given, 0, edges[1])
        wait(waiting)
        for future in waiting:
            future.result()


@lru_cache(maxsize=1)
def pool(threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work. A forked child makes its own: threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="gradprix")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.cache_clear)
