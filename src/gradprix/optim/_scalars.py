"""Scalars of many parameters, such as step counts, each in a separate tensor that users may share."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NUMERIC = {torch.float32, torch.float64}
"""Dtypes of the scalars that `Scalars` supports."""


def is_number(value: object) -> bool:
    """Return True if a value is a CPU tensor with one element of a dtype that `Scalars` supports."""
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
    """Return `count` zero-dimensional tensors in contiguous memory, so that `Scalars` can access them as one array."""
    return list(torch.zeros(count, dtype=dtype, device="cpu"))


def make_contiguous(states: Iterable[Any], key: str) -> None:
    """Replace one scalar of each parameter's state by a copy in contiguous memory.

    Call this only while nothing else refers to these tensors, as right after their creation.

    Args:
        states: state of each parameter; values that are not dictionaries are ignored.
        key: state key of the scalar.
    """
    candidates = [state for state in states if isinstance(state, dict) and is_number(state.get(key))]
    for dtype in NUMERIC:
        own = [state for state in candidates if state[key].dtype is dtype and state[key].dim() == 0]
        for state, number in zip(own, zeros(len(own), dtype), strict=True):
            state[key] = number.copy_(state[key])


class Scalars:
    """One scalar per parameter, read and written in the memory of its tensor.

    The tensors are never replaced, since users may have put them into the state of the optimizer or shared them with
    other processes. Scalars in a common storage are accessed by a single NumPy call, all others one by one.

    Args:
        tensors: tensors for which `is_number` holds.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)
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
        """Return the given values, rounded to the dtypes of the tensors."""
        if not self.cells:
            return np.array(values, dtype=self.array.dtype)
        rounded: NDArray[Any] = np.array(values, dtype=np.float64)
        rounded[self.narrow] = rounded[self.narrow].astype(np.float32)
        return rounded

    def is_unchanged(self) -> bool:
        """Return True if the tensors still hold the values that this object has last read or written."""
        if self.cells:
            return bool(self.known.tolist() == self._read())
        return bool(self.known.tobytes() == self.array[self.index].tobytes())

    def write(self, values: Sequence[float]) -> None:
        """Overwrite the scalars with one value per parameter."""
        self.known = self._stored(values)
        if self.cells:
            for cell, value in zip(self.cells, values, strict=True):
                cell[()] = value
        else:
            self.array[self.index] = self.known

    def increment(self) -> None:
        """Add one to each scalar."""
        self.known = self._stored(self.known + 1)
        if self.cells:
            for cell in self.cells:
                cell[()] += 1
        else:
            self.array[self.index] += 1


class DeviceScalars:
    """One scalar per parameter on a device, changed there without waiting for it.

    Args:
        tensors: tensors with one element each, on one device.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)
        self.narrow = np.array([tensor.dtype is torch.float32 for tensor in tensors])
        self.known = np.array(torch.stack([tensor.double().reshape(()) for tensor in tensors]).tolist())
        self._note_versions()

    def _note_versions(self) -> None:
        self.versions = [tensor._version for tensor in self.tensors]

    def is_unchanged(self) -> bool:
        """Return True if nothing else has changed the tensors in place."""
        return self.versions == [tensor._version for tensor in self.tensors]

    def write(self, values: Sequence[Any]) -> None:
        """Overwrite the scalars with one value per parameter, a number or a tensor on the device."""
        options: dict[str, Any] = {"dtype": torch.float64, "device": self.tensors[0].device}
        tensors = [value if isinstance(value, Tensor) else torch.full((), value, **options) for value in values]
        torch._foreach_copy_(self.tensors, tensors)
        self._note_versions()

    def increment(self) -> None:
        """Add one to each scalar."""
        torch._foreach_add_(self.tensors, 1)
        self._note_versions()
