"""Numbers of many parameters, such as their step counts, each in a tensor of its own that the user may share."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NUMERIC = {torch.float32, torch.float64}
"""The dtypes of numbers that are read and written in memory."""


def is_number(value: object) -> bool:
    """Return whether a tensor is one number in this process's memory, of a dtype that can be written there."""
    return (
        type(value) is Tensor
        and value.numel() == 1
        and value.device.type == "cpu"
        and value.layout is torch.strided
        and value.dtype in NUMERIC
        and not value.requires_grad
        and not value.is_inference()
    )


def zeros(count: int, dtype: torch.dtype) -> list[Tensor]:
    """Return numbers that lie side by side, so that `Scalars` can treat them as one array."""
    return list(torch.zeros(count, dtype=dtype, device="cpu"))


def lay_side_by_side(states: Iterable[Any], key: str) -> None:
    """Replace numbers that nobody else holds yet by equal ones that lie side by side.

    Args:
        states: the state of each parameter; what is no mapping is left alone.
        key: the number's key in it.
    """
    held = [state for state in states if isinstance(state, dict) and is_number(state.get(key))]
    for dtype in NUMERIC:
        own = [state for state in held if state[key].dtype is dtype and state[key].dim() == 0]
        for state, number in zip(own, zeros(len(own), dtype), strict=True):
            state[key] = number.copy_(state[key])


class Scalars:
    """One number for each parameter, read and written in the memory of the tensors that hold them.

    The tensors stay what they are, because the user may have put them into the optimizer's state, or have shared them
    with other processes. Numbers in one storage are accessed by one NumPy call; others one at a time.

    Args:
        tensors: tensors for which `is_number` holds.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.narrow = np.array([tensor.dtype is torch.float32 for tensor in tensors])
        self.array: NDArray[Any] = np.empty(0)
        self.index: Any = slice(0)
        self.cells: list[Any] = []  # memory views
        if len({(t.untyped_storage().data_ptr(), t.dtype) for t in tensors}) == 1:
            first, offsets = tensors[0], [tensor.storage_offset() for tensor in tensors]
            count = first.untyped_storage().nbytes() // first.itemsize
            self.array = first.as_strided((count,), (1,), 0).numpy()
            beside = range(offsets[0], offsets[0] + len(offsets))
            self.index = slice(beside.start, beside.stop) if offsets == list(beside) else np.array(offsets)
        else:
            self.cells = [tensor.numpy().reshape(()).data for tensor in tensors]
        self.known = self._stored(self._read())

    def _read(self) -> Any:
        return [cell[()] for cell in self.cells] if self.cells else self.array[self.index]

    def _stored(self, values: Any) -> NDArray[Any]:
        """Return numbers as the tensors store them."""
        if not self.cells:
            return np.array(values, dtype=self.array.dtype)
        rounded: NDArray[Any] = np.array(values, dtype=np.float64)
        rounded[self.narrow] = rounded[self.narrow].astype(np.float32)
        return rounded

    def is_unchanged(self) -> bool:
        """Return whether the numbers are those that were last read or written here, and nobody else wrote to them."""
        if self.cells:
            return bool(self.known.tolist() == self._read())
        return bool(self.known.tobytes() == self.array[self.index].tobytes())

    def write(self, values: Sequence[float]) -> None:
        """Replace the numbers."""
        self.known = self._stored(values)
        if self.cells:
            for cell, value in zip(self.cells, values, strict=True):
                cell[()] = value
        else:
            self.array[self.index] = self.known

    def increment(self) -> None:
        """Add one to each number."""
        self.known = self._stored(self.known + 1)
        if self.cells:
            for cell in self.cells:
                cell[()] += 1
        else:
            self.array[self.index] += 1
