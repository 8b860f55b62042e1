"""Examples of a `torch.utils.data.Dataset`: read once if they fit in memory, otherwise for every batch."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset

from .batches import Targets
from .data import Data
from .dataset_reader import Collate, CollatedReader, DatasetReader, graph_collate, is_graph
from .rng import RngState, equal_rng_states, get_rng_state
from .tensors import suggest_fix

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

    def __init__(self, items: DatasetReader, test: Any = None, stratify: bool = False) -> None:
        self.items, self.is_collated = items, isinstance(items, CollatedReader)
        self._set_up(len(items), test, stratify)

    def take(self, index: Tensor, rng_states: Sequence[RngState] = ()) -> tuple[Any, Any]:
        """Read the inputs and targets of the examples with the given indices.

        Args:
            index: indices of examples, `[seeds, batch]`.
            rng_states: random state of each row, which reading the row advances. If empty, every row is read with the
                same initial state.

        Returns:
            Inputs and targets, `[seeds, batch, ...]` each; `RaggedRows` if the batches of the seeds have different
            shapes or are not tensors.
        """
        rows = []
        for row, state in zip(index, rng_states or [RngState(torch.Generator()) for _ in index], strict=True):
            with state:
                rows.append(self.items.read(row.tolist()))
        return self.items.stack(rows)

    @property
    def labels(self) -> Tensor:
        """The class index of each example: the dataset's list `targets`, or else the target of every example."""
        labels = getattr(self.items.dataset, "targets", None)
        if labels is None or len(labels) != len(self):
            labels = [self.items.label(i) for i in range(len(self))]
        return torch.as_tensor(labels)

    @property
    def nbytes(self) -> int:
        """Memory use in each process, in bytes: 0, since no examples are held in memory."""
        return 0

    @cached_property
    def ragged(self) -> str | None:
        """As in `Data`; found from a sample of the examples."""
        return self.items.find_ragged()

    @property
    def contents(self) -> tuple[Any, ...]:
        """The number of examples and a sample of them, which represents them in a task's fingerprint."""
        with RngState(torch.Generator()):
            sample = [self.items[i * (len(self) - 1) // (SAMPLE_SIZE - 1)] for i in range(SAMPLE_SIZE)]
        return len(self), sample, *self.items.identity


def load_dataset(
    dataset: Any,
    test: Any = None,
    *,
    targets: Targets = None,
    collate_fn: Collate | None = None,
    length: int | None = None,
    stratify: bool = False,
    memory: float | None = None,
) -> Data:
    """Load a dataset as `Data`, or as `Stream` if it is collated, too large or random; see `Data.from_dataset`."""
    memory_limit = psutil.virtual_memory().available * MEMORY_SHARE if memory is None else memory * 1e9
    if length is not None and _has_numbered_items(dataset):
        raise ValueError(
            f"length = {length}: it is for datasets without numbered items. Give torch.utils.data.Subset(dataset, "
            "range(length)) to use a part of this one."
        )
    dataset = _as_map_style(dataset, length, memory_limit)
    if test is not None and not _is_index(test):
        test = _as_map_style(test, length, memory_limit)
        dataset, test = ConcatDataset([dataset, test]), torch.arange(len(dataset), len(dataset) + len(test))
    if len(dataset) == 0:
        raise ValueError("the dataset is empty.")
    if collate_fn is None:
        collate_fn = _graph_collate(dataset)
    items = DatasetReader(dataset, targets) if collate_fn is None else CollatedReader(dataset, targets, collate_fn)
    with RngState(torch.Generator()):
        if collate_fn is not None:
            items.read_one(0)  # raises an error if the batches cannot be used
            return Stream(items, test, stratify)
        size = sum(x.nbytes for x in tree_leaves(items[0])) * len(items)
        if size > memory_limit or not items.is_deterministic():
            return Stream(items, test, stratify)
        before = get_rng_state()
        examples = items.read(range(len(items)))
        is_random = not equal_rng_states(before, get_rng_state())  # some examples are, such as those of one class
        return Stream(items, test, stratify) if is_random else Data(*examples, test, stratify)


def _has_numbered_items(dataset: Any) -> bool:
    return hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset)


def _is_index(test: Any) -> bool:
    """Return True for indices of examples, and False for a dataset."""
    is_list_of_integers = isinstance(test, list) and all(isinstance(x, int | np.integer) for x in test)
    return is_list_of_integers or isinstance(test, Tensor | np.ndarray | range)


def _graph_collate(dataset: Any) -> Collate | None:
    """Return the `collate_fn` of a dataset of torch_geometric's graphs; None for other datasets."""
    with RngState(torch.Generator()):
        return graph_collate() if is_graph(dataset[0]) else None


def _as_map_style(dataset: Any, length: int | None, memory_limit: float) -> Any:
    """Return a dataset with numbered items; the first `length` items of an iterable one are read into a list.

    Raises:
        TypeError: for objects that are not datasets, and for iterable datasets without a `length`.
        ValueError: if the items need more memory than `memory_limit` bytes.
    """
    if isinstance(dataset, DataLoader):
        raise TypeError(f"it is a {type(dataset).__name__}: {suggest_fix(dataset)}")
    if _has_numbered_items(dataset):
        return dataset
    if length is None and isinstance(dataset, IterableDataset):
        raise TypeError(f"it is a {type(dataset).__name__}: {suggest_fix(dataset)}")
    if length is None or not isinstance(dataset, Iterable):
        raise TypeError(
            f"a {type(dataset).__name__} has no length or no numbered items: give a map-style Dataset, read it into "
            "tensors first, say how many items of an iterable are read, as in Data.from_dataset(items, length=10_000), "
            "or race a training loop of your own that reads it."
        )
    items: list[Any] = []
    size = 0
    with RngState(torch.Generator()):
        for item in islice(dataset, length):
            items.append(item)
            size += sum(x.nbytes for x in tree_leaves(item) if isinstance(x, Tensor | np.ndarray))
            if size > memory_limit:
                raise ValueError(
                    f"length = {length}: the first {len(items)} items take {size / 1e9:.2g} GB, the limit. Give a "
                    "smaller length, raise the limit with memory=..., or race a training loop of your own."
                )
    return items
