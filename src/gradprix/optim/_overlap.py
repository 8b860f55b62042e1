"""Detection of parameters with overlapping memory, which must be stepped sequentially."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Extent = tuple[int, int]
Integers = NDArray[np.int64]


def local(tensor: Any) -> Any:
    """Return the part of a distributed tensor (DTensor) that this process holds; return other values as they are."""
    module = sys.modules.get("torch.distributed.tensor")  # not imported unless there are such tensors
    return tensor.to_local() if module is not None and isinstance(tensor, module.DTensor) else tensor


def extents(tensors: Iterable[Any]) -> list[Extent]:
    """Return the start and end address of each tensor; tensors without memory and other values are omitted."""
    result = []
    for tensor in map(local, tensors):
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided or tensor.numel() == 0:
            continue
        try:
            start = tensor.data_ptr()
        except RuntimeError:  # subclass without memory
            continue
        if start:  # excludes meta tensors and zero tensors without memory
            reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            result.append((start, start + (reach + 1) * tensor.itemsize))
    return result


def overlapping(params: Sequence[Tensor], states: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Flag parameters whose step uses memory that another parameter's step writes, or writes the same memory twice.

    Gaps between the elements of strided tensors count as part of the tensor, which leads to a few false positives.
    A gradient shared by several parameters is not an overlap, since gradients are only read.

    Args:
        params: parameters with gradients; a parameter that occurs twice overlaps with itself.
        states: state of each parameter.

    Returns:
        One flag per parameter.
    """
    spans: list[tuple[int, int, int, bool]] = []
    for i, (x, state) in enumerate(zip(params, states, strict=True)):
        spans += [(*extent, i, True) for extent in extents([x, *state.values()])]
        spans += [(*extent, i, False) for extent in extents([x.grad])]
    flags = np.zeros(len(params), dtype=bool)
    if not spans:
        return flags.tolist()
    starts, ends, owners, written = map(np.array, zip(*sorted(spans), strict=True))
    cluster = _clusters(starts, ends)
    several, writes = np.bincount(cluster) > 1, np.bincount(cluster, weights=written) > 0
    flags[owners[(several & writes)[cluster]]] = True
    return flags.tolist()


def _clusters(starts: Integers, ends: Integers) -> Integers:
    """Divide memory extents into clusters of overlapping ones; return the cluster number of each extent.

    Args:
        starts: start addresses, in ascending order.
        ends: end addresses.
    """
    is_new = starts[1:] >= np.maximum.accumulate(ends)[:-1]
    return np.concatenate([[0], np.cumsum(is_new)])


class WrittenMemory:
    """Memory written by a step. Gradients, which may be new tensors at each step, must not overlap it.

    Args:
        tensors: tensors that are written.
    """

    def __init__(self, tensors: Iterable[Any]) -> None:
        sorted_extents = sorted(extents(tensors))
        starts, ends = np.array(sorted_extents, dtype=np.int64).reshape(-1, 2).T
        cluster = _clusters(starts, ends) if sorted_extents else np.empty(0, np.int64)
        first = np.flatnonzero(np.diff(cluster, prepend=-1))
        self.starts = starts[first]
        self.ends = np.maximum.reduceat(ends, first) if sorted_extents else ends

    def meets(self, starts: Integers, ends: Integers) -> bool:
        """Return True if any of the extents, from `starts[i]` to `ends[i]`, overlaps the written memory."""
        if not self.starts.size:
            return False
        after = np.searchsorted(self.ends, starts, side="right")
        last = after == self.ends.size
        return bool((~last & (self.starts[np.where(last, 0, after)] < ends)).any())
