"""Batches as a model and a loss get them: inputs and targets, also of several rows whose shapes differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_map_only

Targets = str | Sequence[str] | None
"""Key of the targets in a mapping, keys of several targets, or attribute of the targets in a batch of another type."""


@dataclass(frozen=True)
class RaggedRows:
    """Inputs or targets of several rows that cannot form one tensor: their shapes differ, or they hold other objects.

    torch's pytree functions treat it as a leaf.

    Args:
        rows: the inputs or the targets of each row.
    """

    rows: Sequence[Any]

    def __getitem__(self, row: int) -> Any:
        """Return a row with copies of its tensors, which may be changed without changing equal rows."""
        return tree_map_only(Tensor, torch.clone, self.rows[row], is_leaf=_is_packed)

    def select_rows(self, index: Tensor) -> "RaggedRows":
        """Return the rows at `index`; a row may occur several times."""
        return RaggedRows([self.rows[i] for i in index.tolist()])

    def to(self, device: torch.device) -> "RaggedRows":
        """Return the rows with their tensors, and all objects that have a method `to`, on a device."""
        return RaggedRows([tree_map(lambda x: _move(x, device), row, is_leaf=_is_packed) for row in self.rows])


def stack_rows(rows: Sequence[Any]) -> Any:
    """Stack the inputs or the targets of several rows, `[rows, ...]`, or keep them as `RaggedRows`."""
    flat = [flatten(row) for row in rows]
    is_regular = all(structure == flat[0][1] and _layouts(leaves) == _layouts(flat[0][0]) for leaves, structure in flat)
    if not is_regular or non_tensor(rows[0]) is not None:
        return RaggedRows(rows)
    return tree_map(lambda *leaves: torch.stack(leaves), *rows)


def flatten(batch: Any) -> tuple[list[Any], TreeSpec]:
    """Flatten nested inputs or targets; a `PackedSequence` is a leaf."""
    return tree_flatten(batch, is_leaf=_is_packed)


def non_tensor(batch: Any) -> str | None:
    """Return the type of the first value of a batch that is not a dense tensor; None if all are dense tensors."""
    for leaf in flatten(batch)[0]:
        if not isinstance(leaf, Tensor):
            return type(leaf).__name__
        if leaf.layout is not torch.strided or leaf.is_nested:
            return "nested tensor" if leaf.is_nested else "sparse tensor"
    return None


def split_targets(batch: Any, targets: Targets, what: str) -> tuple[Any, Any]:
    """Split a batch, or an item of a dataset, into inputs and targets.

    Args:
        batch: a mapping, a tuple `(input, ..., target)`, or an object with an attribute for the targets.
        targets: key or keys of the targets in a mapping, their fields in a named tuple, or the attribute; `"y"` if
            None.
        what: the subject of error messages, such as `"an item of the dataset"`.

    Raises:
        ValueError: if the targets cannot be identified.
    """
    if isinstance(batch, Mapping):
        names = [targets] if targets is None or isinstance(targets, str) else list(targets)
        if not names or not all(name in batch for name in names):
            raise ValueError(
                f"{what} has {', '.join(map(str, batch))}: say which of them is the target, as in "
                'Data.from_dataset(dataset, targets="label").'
            )
        inputs = {key: value for key, value in batch.items() if key not in names}
        chosen = {name: batch[name] for name in names}
        return inputs, chosen if targets is not None and not isinstance(targets, str) else chosen[names[0]]
    if isinstance(batch, tuple | list) and not _is_packed(batch) and len(batch) > 1:
        if targets is not None:
            batch = _targets_last(batch, targets, what)
        *several, target = batch
        return tuple(several) if len(several) > 1 else several[0], target
    attribute = targets if isinstance(targets, str) else "y"
    if (target := getattr(batch, attribute, None)) is None:
        raise ValueError(f"{what} is of the type {type(batch).__name__}, not (input, target).")
    return batch, target


def _targets_last(batch: Sequence[Any], targets: str | Sequence[str], what: str) -> tuple[Any, ...]:
    """Return the parts of a named tuple as a tuple whose last part are the targets; several are a dictionary.

    Raises:
        ValueError: if the parts have no names, or none of them is that of the targets.
    """
    fields: Sequence[str] | None = getattr(batch, "_fields", None)
    if fields is None:
        raise ValueError(
            f"{what} is a {type(batch).__name__}, whose parts have no names: leave out targets = {targets!r} if the "
            "target is the last part, or let each item be a dictionary."
        )
    names = [targets] if isinstance(targets, str) else list(targets)
    if not names or not set(names) <= set(fields):
        raise ValueError(f"{what} has {', '.join(fields)}: targets = {targets!r} must name one of them.")
    parts = dict(zip(fields, batch, strict=True))
    chosen = {name: parts.pop(name) for name in names}
    return *parts.values(), chosen[targets] if isinstance(targets, str) else chosen


def _layouts(leaves: Sequence[Any]) -> list[Any]:
    return [(x.shape, x.dtype) if isinstance(x, Tensor) else None for x in leaves]


def _is_packed(value: Any) -> bool:
    return isinstance(value, PackedSequence)


def _move(value: Any, device: torch.device) -> Any:
    return value.to(device) if hasattr(value, "to") else value
