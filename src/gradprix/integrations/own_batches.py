"""Data of models that get the targets among their inputs, because they compute their own loss."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate

from gradprix.tasks import Data

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


def load_batches(loader: DataLoader[Any], test: DataLoader[Any] | None, targets: str | None, **options: Any) -> Data:
    """Return the examples of two loaders, with the whole batch of the loader as the input of the model.

    Args:
        loader: loader of the examples for training and validation.
        test: loader of the test examples. If None, test examples are split from those of `loader`.
        targets: as in `OwnBatches`.
        options: arguments of `Data.from_dataset`.
    """
    held_out = None if test is None else test.dataset
    if loader.collate_fn is not default_collate:
        options["collate_fn"] = partial(_collate, loader.collate_fn, targets)
        return Data.from_dataset(loader.dataset, held_out, targets=TARGET, **options)
    own_test = None if held_out is None else OwnBatches(held_out, targets)
    return Data.from_dataset(OwnBatches(loader.dataset, targets), own_test, targets=TARGET, **options)


def _collate(collate_fn: Callable[[Any], Any], targets: str | None, items: Any) -> dict[str, Any]:
    return add_target(targets, collate_fn(items))
