"""Detection of missing and infinite values in the examples of a task, before the race."""

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
"""Approximate number of examples of a lazy dataset that are checked, and time limit in seconds."""


@dataclass(frozen=True)
class Missing:
    """Examples with missing or infinite values.

    Args:
        rows: indices of these examples.
        where: phrase that describes the first such value: its example, its position, and the value.
    """

    rows: Tensor
    where: str


def missing(data: Data) -> Missing | None:
    """Return the examples with missing or infinite values; None if all values are finite.

    All examples are checked if they are in memory. Of a lazy dataset, an evenly spaced sample is checked, and only the
    first such example is returned.

    Raises:
        ValueError: if an example of a lazy dataset cannot be read.
    """
    if not isinstance(data, Stream):
        return _non_finite(torch.arange(len(data)), data.inputs, data.targets, data, len(data))
    started_at, step = time.perf_counter(), max(1, len(data) // READ)
    for number in range(0, len(data), step):
        index = torch.tensor([number])
        try:
            with RngState(torch.Generator()):
                inputs, targets = data.items.read_one(number)
        except Exception as error:
            raise ValueError(f"row {number}: {first_line(error)}") from error
        if non_finite := _non_finite(index, inputs, targets, data, 0):
            return non_finite
        if time.perf_counter() - started_at > SEARCH_SECONDS:
            break
    return None


def _non_finite(index: Tensor, inputs: Any, targets: Any, data: Data, count: int) -> Missing | None:
    """Return those of the given examples that have non-finite values; None if all values are finite.

    Args:
        index: indices of the examples.
        inputs: inputs of the examples.
        targets: targets of the examples.
        data: data of the task.
        count: total number of examples, to be mentioned in the description; 0 leaves it out.
    """
    rows, where = torch.zeros(len(index), dtype=torch.bool), ""
    for part, values in (("inputs", inputs), ("targets", targets)):
        for path, x in tree_flatten_with_path(values)[0]:
            if not isinstance(x, Tensor) or not (x.is_floating_point() or x.is_complex()):
                continue
            if x.layout is not torch.strided or x.dim() == 0 or bool((good := x.isfinite()).all()):
                continue
            bad = ~good.reshape(len(x), -1).all(1)
            if not where:
                row = int(bad.int().argmax())
                number = int(index[row if len(x) == len(index) else 0])
                place = (~good[row]).nonzero()[0].tolist()
                column = f" in column {place[0] if len(place) == 1 else tuple(place)}" if place else ""
                value = x[row][tuple(place)].item()
                where = f"{_format_row(number, data)} of its {part}{keystr(path)} has {value}{column}"
            rows |= bad if len(x) == len(index) else bad.any()  # the batch of one example may have several rows
    if not where:
        return None
    many = f" ({int(rows.sum())} of {count} rows have such values)" if count else ""
    return Missing(index[rows], where + many)


def _format_row(number: int, data: Data) -> str:
    """Format the index of an example. If it is a test example, add its index in the test set."""
    place = [] if data.test is None else (data.test == number).nonzero().flatten().tolist()
    return f"row {number}" + (f" (row {place[0]} of the test set)" if place else "")
