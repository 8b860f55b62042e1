"""Conversion of user data to tensors: arrays, data frames, lists of numbers; or an error with the remedy."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

WIDER = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}
"""Signed integer types that replace unsigned types, for which torch has few operations."""
CONVERSIONS = {
    "category": "pandas.get_dummies(frame), or column.cat.codes for an embedding",
    "datetime": "(column - column.min()).dt.total_seconds()",
    "timedelta": "column.dt.total_seconds()",
    "object": "pandas.get_dummies(frame), or pandas.to_numeric(column) where it holds numbers",
}
"""Advice on converting data-frame columns to numbers, by the start of their dtype's name."""


def as_tensor(value: Any, name: str) -> Tensor:
    """Convert a value to a dense tensor; float64 arrays are converted to torch's default dtype.

    Args:
        value: a tensor, an array, a data frame, or a list of numbers.
        name: name of the value in error messages.

    Raises:
        TypeError: if the value is not numeric, or if part of its meaning would be lost, such as a mask.
    """
    if isinstance(value, Tensor):
        if value.layout is not torch.strided or value.is_nested:
            cure = f"{name}.to_padded_tensor(0.0)" if value.is_nested else f"{name}.to_dense()"
            raise TypeError(f"{name} is a {'nested' if value.is_nested else 'sparse'} tensor: give {cure}.")
        return _widen(value.detach(), name)
    if fix := suggest_fix(value):
        raise TypeError(f"{name} is a {type(value).__name__}: {fix}")
    if type(value).__module__.partition(".")[0] == "scipy" and hasattr(value, "toarray"):
        raise TypeError(f"{name} is a sparse {type(value).__name__} of SciPy: give {name}.toarray().")
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            raise TypeError(
                f"{name} is a masked array, whose mask would be lost: give {name}.filled(number), and the mask as "
                "another input where the model needs it."
            )
        value = value.data
    try:
        array = np.asarray(_frame_to_numpy(value, name))
    except ValueError as error:
        raise TypeError(f"{name} cannot be converted to a tensor: {error}.") from error
    if array.dtype.kind not in "biufc":
        raise TypeError(
            f"{name} is a {type(value).__name__} of {array.dtype}: give numbers, as a tensor or an array. "
            "For a torch.utils.data.Dataset, use Data.from_dataset(dataset)."
        )
    if array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8):  # higher precision than torch supports
        array = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    default = {np.dtype(np.float64): torch.get_default_dtype(), np.dtype(np.complex128): _default_complex()}
    # A copy in native byte order.
    own = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    return _widen(torch.from_numpy(own).to(default.get(own.dtype)), name)


def dense(x: Tensor) -> Tensor:
    """Convert a tensor to a dense layout, if it is sparse like gradients of `nn.Embedding(..., sparse=True)`."""
    return x if x.layout is torch.strided else x.to_dense()


def suggest_fix(value: Any) -> str:
    """Return advice on how to pass a data loader or dataset. Returns an empty string for any other value."""
    if isinstance(value, IterableDataset) or (
        isinstance(value, DataLoader) and isinstance(value.dataset, IterableDataset)
    ):
        return (
            "its examples cannot be indexed, so they cannot be split. Say how many of them are read into memory, as in "
            "gp.Data.from_dataset(dataset, length=10_000), or race a training loop of your own that reads it."
        )
    if isinstance(value, DataLoader):
        return (
            "give gp.Data.from_loader(loader), which uses its dataset, batch size, sampler and collate_fn, or race a "
            "training loop of your own with the loader."
        )
    return "give gp.Data.from_dataset(dataset)." if isinstance(value, Dataset) else ""


def _widen(x: Tensor, name: str) -> Tensor:
    if x.dtype is torch.uint64 and x.numel() and int(x.view(torch.int64).min()) < 0:
        raise TypeError(f"{name} has integers of 2⁶³ or more, which torch does not support: make them smaller.")
    return x.to(WIDER[x.dtype]) if x.dtype in WIDER else x


def _default_complex() -> torch.dtype:
    return torch.complex128 if torch.get_default_dtype() is torch.float64 else torch.complex64


def _frame_to_numpy(value: Any, name: str) -> Any:
    """Convert a pandas data frame or column to a NumPy array; return any other value unchanged."""
    if type(value).__module__.partition(".")[0] != "pandas":
        return value
    import pandas as pd

    if not isinstance(value, pd.DataFrame | pd.Series):
        value = pd.Series(value)
    columns = value.items() if isinstance(value, pd.DataFrame) else [(None, value)]
    arrays = []
    for label, column in columns:
        place = name if label is None else f"column {label!r} of {name}"
        kind = column.dtype
        if not (pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind)):
            fixes = (fix for start, fix in CONVERSIONS.items() if str(kind).startswith(start))
            fix = next(fixes, CONVERSIONS["object"])
            raise TypeError(f"{place} holds {kind}, not numbers: convert it, as by {fix}.")
        missing = column.isna().to_numpy()
        if missing.any() and not isinstance(kind, np.dtype):
            raise TypeError(
                f"{place} has no value in row {int(missing.argmax())} (<NA>; {int(missing.sum())} of "
                f"{len(column)} rows): fill such rows, as by .fillna(0), or drop them."
            )
        arrays.append(column.to_numpy(dtype=getattr(kind, "numpy_dtype", None)))
    return np.column_stack(arrays) if isinstance(value, pd.DataFrame) and arrays else arrays[0]
