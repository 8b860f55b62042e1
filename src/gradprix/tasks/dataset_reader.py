"""Readers of datasets: items as tensors, or batches of items as a `collate_fn` makes them."""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from .batches import Targets, flatten, non_tensor, split_targets, stack_rows
from .rng import RngState, equal_rng_states, get_rng_state
from .tensors import as_tensor

READ_TWICE = 8
"""Approximate number of items that are read twice, to see whether they are random."""
CHECKED_ITEMS, CHECK_SECONDS = 2_000, 2.0
"""Approximate number of items whose batches are checked for different shapes, and time limit in seconds."""

Collate = Callable[[list[Any]], Any]
"""Function that makes a batch of a list of items, as the `collate_fn` of a `DataLoader`."""


class DatasetReader:
    """Reader that converts the items of a dataset to pairs of tensors, inputs and targets.

    Args:
        dataset: a dataset with `__len__` and `__getitem__`.
        targets: as in `Data.from_dataset`.
    """

    def __init__(self, dataset: Any, targets: Targets = None) -> None:
        self.dataset, self.targets = dataset, targets

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        item = self.dataset[number]
        inputs, targets = split_targets(item, self.targets, "an item of the dataset")
        return _to_tensors(inputs), _to_tensors(targets)

    def read(self, numbers: Iterable[int]) -> tuple[Any, Any]:
        """Read the examples with the given indices; return their inputs and targets, `[examples, ...]` each."""
        inputs, targets = _stack([self[number] for number in numbers])
        return inputs, targets

    def read_one(self, number: int) -> tuple[Any, Any]:
        """Read an example as a batch of its own."""
        return self.read([number])

    def label(self, number: int) -> int:
        """Return the target of an example, which must be a class index."""
        return int(self[number][1])

    def stack(self, rows: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
        """Stack the inputs and the targets of several rows that were read, `[rows, examples, ...]` each."""
        inputs, targets = _stack(rows)
        return inputs, targets

    def find_ragged(self) -> str | None:
        """As `Data.ragged`: all examples must have one shape."""
        return None

    @property
    def identity(self) -> tuple[Any, ...]:
        """What the examples depend on besides the dataset; it enters the fingerprint."""
        return ()

    def is_deterministic(self) -> bool:
        """Return True if reading examples draws no random numbers, and gives the same values twice.

        A random transformation may have no effect on an example, and so may another one on every example that is read
        here, if its random generator is its own.
        """
        step = max(1, len(self) // READ_TWICE)
        return all(self._is_read_equally(number) for number in range(0, len(self), step))

    def _is_read_equally(self, number: int) -> bool:
        pairs = []
        for seed in range(2):
            with RngState(torch.Generator().manual_seed(seed)):
                before = get_rng_state()
                pairs.append(tree_leaves(self[number]))
                if not equal_rng_states(before, get_rng_state()):
                    return False
        return all(
            a.shape == b.shape and torch.equal(_without_nan(a), _without_nan(b)) for a, b in zip(*pairs, strict=True)
        )


class CollatedReader(DatasetReader):
    """Reader of batches that a `collate_fn` makes of the items of a dataset.

    Args:
        dataset: a dataset with `__len__` and `__getitem__`; its items may have any type.
        targets: as in `Data.from_dataset`.
        collate_fn: makes a batch of a list of items.
    """

    def __init__(self, dataset: Any, targets: Targets, collate_fn: Collate) -> None:
        super().__init__(dataset, targets)
        self.collate_fn = collate_fn

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        # The example occurs twice, since a batch of one example is often a special case.
        return self.read([number, number])

    def read(self, numbers: Iterable[int]) -> tuple[Any, Any]:
        """Read a batch of the examples with the given indices; return its inputs and targets."""
        read_items = getattr(self.dataset, "__getitems__", None)  # as a DataLoader reads
        items = read_items(list(numbers)) if read_items else [self.dataset[number] for number in numbers]
        inputs, targets = split_targets(self.collate_fn(items), self.targets, "the batch of collate_fn")
        return (inputs,) if isinstance(inputs, list) else inputs, targets  # a list is one argument of the model

    def read_one(self, number: int) -> tuple[Any, Any]:
        """Read an example as a batch that holds it twice."""
        return self[number]

    def label(self, number: int) -> int:
        """Return the target of an example, which must be a class index."""
        return int(self[number][1][0])

    def stack(self, rows: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
        """Stack the batches of several rows, `[rows, ...]`; those that do not have one shape become `RaggedRows`."""
        inputs, targets = zip(*rows, strict=True)
        return stack_rows(inputs), stack_rows(targets)

    def find_ragged(self) -> str | None:
        """As `Data.ragged`; found from batches of single examples, evenly spaced in the dataset."""
        started_at, layouts = time.perf_counter(), None
        with RngState(torch.Generator()):
            for number in range(0, len(self), max(1, len(self) // CHECKED_ITEMS)):
                inputs, targets = self[number]
                if (kind := non_tensor((inputs, targets))) is not None:
                    return kind
                now = [(x.shape, x.dtype) for x in flatten((inputs, targets))[0]]
                layouts = layouts or now
                if now != layouts:
                    return Tensor.__name__
                if time.perf_counter() - started_at > CHECK_SECONDS:
                    break
        return None

    @property
    def identity(self) -> tuple[Any, ...]:
        """The code of `collate_fn`; it enters the fingerprint."""
        return (self.collate_fn,)


def is_graph(item: Any) -> bool:
    """Return True for an object of torch_geometric, which is not imported for this."""
    return any(base.__module__.partition(".")[0] == "torch_geometric" for base in type(item).__mro__)


def graph_collate(follow_batch: Sequence[str] | None = None, exclude_keys: Sequence[str] | None = None) -> Collate:
    """Return torch_geometric's function that joins graphs to a `Batch`; the arguments are those of its `DataLoader`."""
    from torch_geometric.data import Batch

    return partial(Batch.from_data_list, follow_batch=follow_batch, exclude_keys=exclude_keys)


def _to_tensors(value: Any) -> Any:
    """Convert all numbers and arrays in a nested structure to tensors, float64 ones to torch's default dtype."""

    def leaf(x: Any) -> Tensor:
        if not isinstance(x, Tensor) and np.asarray(x).dtype.kind not in "biufc":
            raise TypeError(
                f"an item of the dataset holds a {type(x).__name__}: give numbers, as tensors or arrays; tokenize "
                "and pad text first, or in Data.from_dataset(dataset, collate_fn=...)."
            )
        return as_tensor(x, "an item of the dataset")

    return tree_map(leaf, value)


def _without_nan(x: Tensor) -> Tensor:
    """Return a tensor with NaNs replaced, so that two of them are equal."""
    return x.nan_to_num() if x.is_floating_point() or x.is_complex() else x


def _stack(parts: Sequence[Any]) -> Any:
    def stack(*leaves: Tensor) -> Tensor:
        if len({x.shape for x in leaves}) > 1:
            shapes = ", ".join(sorted({str(tuple(x.shape)) for x in leaves})[:3])
            raise ValueError(
                f"examples have different shapes ({shapes}): pad or crop them to one shape, or give "
                "Data.from_dataset(dataset, collate_fn=...), which makes batches of them."
            )
        return torch.stack(leaves)

    return tree_map(stack, *parts)
