"""Detection of missing and infinite values in a task's examples before the race, with the row of the first one."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path

from gradprix.tasks import Data
from gradprix.tasks.lazy_dataset import Stream
from gradprix.tasks.rng import RngState
from gradprix.tasks.task import first_line

READ, SEARCH_SECONDS = 256, 2.0
"""Maximum number of examples of a lazy dataset to check, and time limit in seconds."""


@dataclass(frozen=True)
class Missing:
    """Examples with non-finite values.

    Args:
        rows: indices of the examples.
        where: location of the first such value, in words.
    """

    rows: Tensor
    where: str


def missing(data: Data) -> Missing | None:
    """Return the examples with non-finite values; None if there are none.

    Checks all examples if they are in memory, otherwise an evenly spaced sample.
    """
    if not isinstance(data, Stream):
        return _non_finite(torch.arange(len(data)), data.inputs, data.targets, data, len(data))
    started_at, step = time.perf_counter(), max(1, len(data) // READ)
    for number in range(0, len(data), step):
        index = torch.tensor([number])
        try:
            with RngState(torch.Generator()):
                inputs, targets = data.items.read(index.tolist())
        except Exception as error:
            raise ValueError(f"row {number}: {first_line(error)}") from error
        if non_finite := _non_finite(index, inputs, targets, data, 0):
            return non_finite
        if time.perf_counter() - started_at > SEARCH_SECONDS:
            break
    return None


def _non_finite(index: Tensor, inputs: Any, targets: Any, data: Data, count: int) -> Missing | None:
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
    """Format the index of an example, and its index among the test examples if it is one."""
    place = [] if data.test is None else (data.test == number).nonzero().flatten().tolist()
    return f"row {number}" + (f" (row {place[0]} of the test set)" if place else "")
