"""Parameters whose memory overlaps with that of others: they have to be stepped one after another."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Extent = tuple[int, int]
Integers = NDArray[np.int64]


def extents(tensors: Iterable[Any]) -> list[Extent]:
    """Return the first address and the end of each tensor's memory; what is no tensor with memory is left out."""
    found = []
    for tensor in tensors:
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided or tensor.numel() == 0:
            continue
        try:
            start = tensor.data_ptr()
        except RuntimeError:  # a subclass without memory of its own
            continue
        if start:  # not of the meta device, nor a tensor of zeros that takes no memory
            reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            found.append((start, start + (reach + 1) * tensor.itemsize))
    return found


def overlapping(params: Sequence[Tensor], held: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Return for each parameter whether a step of it touches memory that another step writes, or that it writes twice.

    Memory between the elements of a strided tensor counts as its own, so that a few are found that do not overlap.
    That two parameters share a gradient is no overlap: gradients are only read.

    Args:
        params: parameters with gradients; one that occurs twice overlaps with itself.
        held: the state of each.
    """
    places: list[tuple[int, int, int, bool]] = []
    for i, (x, state) in enumerate(zip(params, held, strict=True)):
        places += [(*extent, i, True) for extent in extents([x, *state.values()])]
        places += [(*extent, i, False) for extent in extents([x.grad])]
    flags = np.zeros(len(params), dtype=bool)
    if not places:
        return flags.tolist()
    starts, ends, owners, written = map(np.array, zip(*sorted(places), strict=True))
    cluster = _clusters(starts, ends)
    several, writes = np.bincount(cluster) > 1, np.bincount(cluster, weights=written) > 0
    flags[owners[(several & writes)[cluster]]] = True
    return flags.tolist()


def _clusters(starts: Integers, ends: Integers) -> Integers:
    """Return the number of the cluster of overlapping extents to which each belongs, given that starts ascend."""
    apart = starts[1:] >= np.maximum.accumulate(ends)[:-1]
    return np.concatenate([[0], np.cumsum(apart)])


class Written:
    """The memory that a step writes, to be compared with gradients, which are other tensors at each step.

    Args:
        tensors: all that is written.
    """

    def __init__(self, tensors: Iterable[Any]) -> None:
        found = sorted(extents(tensors))
        starts, ends = np.array(found, dtype=np.int64).reshape(-1, 2).T
        cluster = _clusters(starts, ends) if found else np.empty(0, np.int64)
        first = np.flatnonzero(np.diff(cluster, prepend=-1))
        self.starts = starts[first]
        self.ends = np.maximum.reduceat(ends, first) if found else ends

    def meets(self, starts: Integers, ends: Integers) -> bool:
        """Return whether any of these extents overlaps with what is written."""
        if not self.starts.size:
            return False
        after = np.searchsorted(self.ends, starts, side="right")
        last = after == self.ends.size
        return bool((~last & (self.starts[np.where(last, 0, after)] < ends)).any())
