"""Examples of a `torch.utils.data.Dataset`: read once if they fit in memory, otherwise for every batch."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset

from .data import Data
from .rng import RngState
from .tensors import as_tensor, suggest_fix

SAMPLE_SIZE = 16
"""Number of items that enter the fingerprint of a dataset that is not held in memory."""
MEMORY_SHARE = 0.25
"""Share of the free memory that examples may take, unless the user sets a limit."""


class Stream(Data):
    """Examples that are read from a dataset for every batch, instead of being held in memory.

    Args:
        items: reader of the dataset.
        test: as in `Data`.
        stratify: as in `Data`; requires reading every example once, unless the dataset has a list `targets`.
    """

    def __init__(self, items: "DatasetReader", test: Any = None, stratify: bool = False) -> None:
        self.items = items
        self._set_up(len(items), test, stratify)

    def take(self, index: Tensor, rng_states: Sequence[RngState] = ()) -> tuple[Any, Any]:
        """Read the inputs and targets of the examples with the given indices.

        Args:
            index: indices of examples, `[seeds, batch]`.
            rng_states: random state of each row, which reading the row advances. If empty, every row is read with the
                same initial state.

        Returns:
            Inputs and targets, `[seeds, batch, ...]` each.
        """
        rows = []
        for row, state in zip(index, rng_states or [RngState(torch.Generator()) for _ in index], strict=True):
            with state:
                rows.append(self.items.read(row.tolist()))
        inputs, targets = _stack(rows)
        return inputs, targets

    @property
    def labels(self) -> Tensor:
        """The class index of each example: the dataset's list `targets`, or else the target of every example."""
        labels = getattr(self.items.dataset, "targets", None)
        if labels is None or len(labels) != len(self):
            labels = [int(self.items[i][1]) for i in range(len(self))]
        return torch.as_tensor(labels)

    @property
    def nbytes(self) -> int:
        """Memory use in each process, in bytes: 0, since no examples are held in memory."""
        return 0

    @property
    def identity(self) -> Any:
        """The part of a task's fingerprint that identifies the data, with a sample of the examples instead of all."""
        with RngState(torch.Generator()):
            sample = [self.items[i * (len(self) - 1) // (SAMPLE_SIZE - 1)] for i in range(SAMPLE_SIZE)]
        return len(self), sample, self.test, self.stratify


class DatasetReader:
    """Reader that converts the items of a dataset to pairs of tensors, inputs and targets.

    Args:
        dataset: a dataset with `__len__` and `__getitem__`.
        targets: key of the target if items are mappings.
    """

    def __init__(self, dataset: Any, targets: str | None = None) -> None:
        self.dataset, self.targets = dataset, targets

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        item = self.dataset[number]
        if isinstance(item, Mapping):
            if self.targets not in item:
                raise ValueError(
                    f"an item of the dataset has {', '.join(map(str, item))}: say which of them is the target, as in "
                    'Data.from_dataset(dataset, targets="label").'
                )
            inputs = {key: value for key, value in item.items() if key != self.targets}
            return _to_tensors(inputs), _to_tensors(item[self.targets])
        if not isinstance(item, tuple | list) or len(item) < 2:
            raise ValueError(f"items of the dataset are of the type {type(item).__name__}, not (input, target).")
        *several, target = item
        return _to_tensors(tuple(several) if len(several) > 1 else several[0]), _to_tensors(target)

    def read(self, numbers: Iterable[int]) -> tuple[Any, Any]:
        """Read the examples with the given indices; return their inputs and targets, `[examples, ...]` each."""
        inputs, targets = _stack([self[number] for number in numbers])
        return inputs, targets

    def is_deterministic(self) -> bool:
        """Return True if reading the first example with two different seeds gives the same values."""
        pairs = []
        for seed in range(2):
            with RngState(torch.Generator().manual_seed(seed)):
                pairs.append(tree_leaves(self[0]))
        return all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(*pairs, strict=True))


def load_dataset(
    dataset: Any, test: Any = None, *, targets: str | None = None, stratify: bool = False, memory: float | None = None
) -> Data:
    """Load a dataset as `Data`, or as `Stream` if it is too large or random; see `Data.from_dataset`."""
    for each in (dataset, test):
        if isinstance(each, DataLoader | IterableDataset):
            raise TypeError(f"it is a {type(each).__name__}: {suggest_fix(each)}")
        if each is not None and not (hasattr(each, "__len__") and hasattr(each, "__getitem__")):
            raise TypeError(
                f"a {type(each).__name__} has no length or no numbered items: give a map-style Dataset, read it "
                "into tensors first, or race a training loop of your own that reads it."
            )
    if test is not None and not (isinstance(test, Tensor | np.ndarray | list | range)):
        dataset, test = ConcatDataset([dataset, test]), torch.arange(len(dataset), len(dataset) + len(test))
    items = DatasetReader(dataset, targets)
    if len(items) == 0:
        raise ValueError("the dataset is empty.")
    memory_limit = psutil.virtual_memory().available * MEMORY_SHARE if memory is None else memory * 1e9
    with RngState(torch.Generator()):
        size = sum(x.nbytes for x in tree_leaves(items[0])) * len(items)
        if size > memory_limit or not items.is_deterministic():
            return Stream(items, test, stratify)
        return Data(*items.read(range(len(items))), test, stratify)


def _to_tensors(value: Any) -> Any:
    """Convert all numbers and arrays in a nested structure to tensors, float64 ones to torch's default dtype."""

    def leaf(x: Any) -> Tensor:
        if not isinstance(x, Tensor) and np.asarray(x).dtype.kind not in "biufc":
            raise TypeError(
                f"an item of the dataset holds a {type(x).__name__}: give numbers, as tensors or arrays; tokenize "
                "and pad text first."
            )
        return as_tensor(x, "an item of the dataset")

    return tree_map(leaf, value)


def _stack(parts: Sequence[Any]) -> Any:
    def stack(*leaves: Tensor) -> Tensor:
        if len({x.shape for x in leaves}) > 1:
            shapes = ", ".join(sorted({str(tuple(x.shape)) for x in leaves})[:3])
            raise ValueError(f"examples have different shapes ({shapes}): pad or crop them to one shape.")
        return torch.stack(leaves)

    return tree_map(stack, *parts)
