"""Missing and infinite values among a task's examples, found before the race with the row that has one."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path

from gradprix.tasks import Data
from gradprix.tasks.lazy_dataset import Stream
from gradprix.tasks.rng import Luck
from gradprix.tasks.task import first_line

READ, LONG = 256, 2.0
"""Examples of a dataset that is read when needed which are looked at, at most, and for how many seconds at most."""


@dataclass(frozen=True)
class Missing:
    """Examples with values that are not finite.

    Args:
        rows: their numbers.
        where: the first such value, in words.
    """

    rows: Tensor
    where: str


def missing(data: Data) -> Missing | None:
    """Return which examples have values that are not finite; None where there are none.

    Every example is looked at where they are in memory, otherwise some that are spread over the dataset.
    """
    if not isinstance(data, Stream):
        return _among(torch.arange(len(data)), data.inputs, data.targets, data, len(data))
    begun, step = time.perf_counter(), max(1, len(data) // READ)
    for number in range(0, len(data), step):
        index = torch.tensor([number])
        try:
            with Luck(torch.Generator()):
                inputs, targets = data.items.read(index.tolist())
        except Exception as error:
            raise ValueError(f"row {number}: {first_line(error)}") from error
        if found := _among(index, inputs, targets, data, 0):
            return found
        if time.perf_counter() - begun > LONG:
            break
    return None


def _among(index: Tensor, inputs: Any, targets: Any, data: Data, count: int) -> Missing | None:
    rows, where = torch.zeros(len(index), dtype=torch.bool), ""
    for part, values in (("inputs", inputs), ("targets", targets)):
        for path, x in tree_flatten_with_path(values)[0]:
            if not (x.is_floating_point() or x.is_complex()) or bool((good := x.isfinite()).all()):
                continue
            bad = ~good.reshape(len(x), -1).all(1)
            if not where:
                row = int(bad.int().argmax())
                place = (~good[row]).nonzero()[0].tolist()
                column = f" in column {place[0] if len(place) == 1 else tuple(place)}" if place else ""
                value = x[row][tuple(place)].item()
                where = f"{_row(int(index[row]), data)} of its {part}{keystr(path)} has {value}{column}"
            rows |= bad
    if not where:
        return None
    many = f" ({int(rows.sum())} of {count} rows have such values)" if count else ""
    return Missing(index[rows], where + many)


def _row(number: int, data: Data) -> str:
    """The number of an example, and that among the test examples where it is one of them."""
    place = [] if data.test is None else (data.test == number).nonzero().flatten().tolist()
    return f"row {number}" + (f" (row {place[0]} of the test examples)" if place else "")
