"""Data of models that get the targets among their inputs, because they compute their own loss."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from gradprix.tasks import Data

LOOP = "race a training loop instead: gradprix.integrations.lightning.fit"
BATCH, TARGET = "batch", "target"
"""Keys of an example: the item or batch as the dataset has it, and its target once more, for metrics."""


class OwnBatches(Dataset[Any]):
    """Dataset of items that hold the item of another dataset and, separately, its target.

    Args:
        dataset: the other dataset.
        targets: key of the target if items are mappings; otherwise, the target is the last part of an item.
    """

    def __init__(self, dataset: Any, targets: str | None = None) -> None:
        self.dataset, self.targets = dataset, targets

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return add_target(self.targets, self.dataset[number])


def add_target(targets: str | None, item: Any) -> dict[str, Any]:
    """Return an item or batch together with its target.

    Args:
        targets: key of the target if the item is a mapping.
        item: the item or batch.

    Raises:
        ValueError: if the item is a mapping without this key.
    """
    if isinstance(item, Mapping):
        if targets is not None and targets not in item:
            raise ValueError(f"targets={targets!r}: an item of the dataset has {', '.join(map(str, item))}.")
        return {BATCH: dict(item), TARGET: list(item.values())[-1] if targets is None else item[targets]}
    if isinstance(item, tuple | list):
        return {BATCH: tuple(item), TARGET: item[-1]}
    return {BATCH: item, TARGET: item}


def load_batches(loader: Any, test: Any, targets: str | None, **options: Any) -> Data:
    """Return the examples of a loader, with the whole batch of the loader as the input of the model.

    Args:
        loader: loader of the examples for training and validation.
        test: loader of the test examples. If None, test examples are split from those of `loader`.
        targets: as in `OwnBatches`.
        options: arguments of `Data.from_loader`.

    Raises:
        TypeError: if a loader is none of torch's, or its examples have no numbers.
        ValueError: if the loader makes batches in a way of its own.
    """
    for each in (loader, test):
        if each is not None and (not isinstance(each, DataLoader) or isinstance(each.dataset, IterableDataset)):
            what = type(each.dataset if isinstance(each, DataLoader) else each).__name__
            raise TypeError(f"a {what} has no numbered examples, which a race could split: {LOOP}.")
    if loader.batch_sampler is None or type(loader).__iter__ is not DataLoader.__iter__:
        raise ValueError(f"the loader of training examples makes its batches in a way of its own: {LOOP}.")
    collate = loader.collate_fn
    read: Callable[[Any], Any] = partial(OwnBatches, targets=targets)
    if collate is not default_collate:
        collate, read = partial(_collate, collate, targets), _unchanged
    own = DataLoader(read(loader.dataset), batch_sampler=loader.batch_sampler, collate_fn=collate)
    return Data.from_loader(own, None if test is None else read(test.dataset), targets=TARGET, **options)


def join_loaders(first: Any, second: Any) -> Any:
    """Return a loader of the examples of two loaders, with the batch size of the first.

    Raises:
        ValueError: if the first one selects its examples by a sampler.
    """
    if not isinstance(first, DataLoader) or not isinstance(second, DataLoader):
        return first  # which is refused, where it is read
    if type(first.sampler) not in (SequentialSampler, RandomSampler):
        raise ValueError(
            f"the loader of training examples has a {type(first.sampler).__name__}, which has no place for the "
            f"validation examples: {LOOP}."
        )
    both: ConcatDataset[Any] = ConcatDataset([first.dataset, second.dataset])
    return DataLoader(both, first.batch_size, collate_fn=first.collate_fn)


def _unchanged(dataset: Any) -> Any:
    return dataset


def _collate(collate_fn: Callable[[Any], Any], targets: str | None, items: Any) -> dict[str, Any]:
    return add_target(targets, collate_fn(items))
