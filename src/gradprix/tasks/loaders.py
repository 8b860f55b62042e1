"""Examples of a `torch.utils.data.DataLoader`, with its batch size and `collate_fn`, and its sampler where possible."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from .batches import Targets
from .data import Data
from .dataset_reader import Collate, graph_collate, is_graph
from .lazy_dataset import load_dataset

OR_LOOP = "or race a training loop of your own with the loader."


def load_loader(
    loader: Any,
    test: Any = None,
    *,
    targets: Targets = None,
    length: int | None = None,
    stratify: bool = False,
    memory: float | None = None,
) -> Data:
    """Load the examples of a loader; see `Data.from_loader`."""
    sampler, batch_size = _sampler(loader)
    dataset, weights = _sampled(loader.dataset, sampler)
    collate_fn = _collate_fn(loader)
    if isinstance(test, DataLoader):
        test = _test_examples(test, collate_fn)
    data = load_dataset(
        dataset, test, targets=targets, collate_fn=collate_fn, length=length, stratify=stratify, memory=memory
    )
    data.batch_size = batch_size
    if weights is not None:
        data.weights = torch.cat([weights, torch.zeros(len(data) - len(weights), dtype=weights.dtype)])
    return data


def _sampler(loader: Any) -> tuple[Any, int]:
    """Return the sampler and the batch size of a loader.

    Raises:
        TypeError: if it is not a loader, or makes batches in a way of its own.
        ValueError: if its batches have no size.
    """
    if not isinstance(loader, DataLoader):
        raise TypeError(
            f"a {type(loader).__name__} is not a torch.utils.data.DataLoader: give its dataset, as in "
            "gp.Data.from_dataset(dataset)."
        )
    kind = type(loader)
    if kind.__iter__ is not DataLoader.__iter__ or kind._get_iterator is not DataLoader._get_iterator:
        raise TypeError(
            f"a {kind.__name__} makes batches in a way of its own: give a plain torch.utils.data.DataLoader, {OR_LOOP}"
        )
    batches = loader.batch_sampler
    if type(batches) is BatchSampler:
        return batches.sampler, batches.batch_size
    if batches is None:
        raise ValueError(
            "the loader makes no batches (batch_size=None): give it a batch_size and a dataset of single examples, "
            + OR_LOOP
        )
    raise ValueError(
        f"the loader has a batch sampler of its own, {type(batches).__name__}, whose batches cannot be drawn by the "
        f"seed of a run: give DataLoader(dataset, batch_size=...), {OR_LOOP}"
    )


def _sampled(dataset: Any, sampler: Any) -> tuple[Any, Tensor | None]:
    """Return the examples that a sampler selects, and the weights by which it draws them with replacement, if any.

    Raises:
        ValueError: if the sampler does something else.
    """
    if isinstance(dataset, IterableDataset):
        return dataset, None
    kind = next((kind for kind in SAMPLERS if type(sampler).__iter__ is kind.__iter__), None)
    if kind is SubsetRandomSampler:
        indices = [int(i) for i in sampler.indices]
        if len(set(indices)) < len(indices):
            raise ValueError(
                "the indices of the loader's SubsetRandomSampler are not distinct: an example that occurs twice could "
                "be in training and in test. Remove the repetitions."
            )
        return Subset(dataset, indices), None
    if kind is None:
        raise ValueError(
            f"the order of the loader's {type(sampler).__name__} cannot be drawn by the seed of a run: use "
            f"shuffle=True, a SubsetRandomSampler or a WeightedRandomSampler, {OR_LOOP}"
        )
    if kind in (SequentialSampler, DistributedSampler):
        return dataset, None
    draws, count = len(sampler), len(dataset)
    if draws != count:
        raise ValueError(
            f"the loader's {type(sampler).__name__} draws {draws} of {count} examples: an epoch has as many draws as "
            f"there are training examples. Leave num_samples at {count}, and set Task(epochs=...) instead."
        )
    if kind is RandomSampler:
        return dataset, torch.ones(count, dtype=torch.float64) if sampler.replacement else None
    if not sampler.replacement:
        raise ValueError(
            "the loader's WeightedRandomSampler draws every example once (replacement=False), so that the weights "
            "have no effect on an epoch: use shuffle=True, or replacement=True."
        )
    weights: Tensor = sampler.weights.double()
    if len(weights) != count:
        raise ValueError(f"the loader's sampler has {len(weights)} weights for {count} examples: give one for each.")
    return dataset, weights


SAMPLERS = SequentialSampler, RandomSampler, DistributedSampler, SubsetRandomSampler, WeightedRandomSampler
"""Samplers that have the same meaning when the seed of a run draws the order."""


def _collate_fn(loader: DataLoader[Any]) -> Collate | None:
    """Return the `collate_fn` of a loader; None for torch's default."""
    collate_fn: Any = loader.collate_fn
    if is_graph(collate_fn):  # the collater of torch_geometric, which refers to the dataset
        return graph_collate(collate_fn.follow_batch, collate_fn.exclude_keys)
    return None if collate_fn is default_collate else collate_fn


def _test_examples(loader: DataLoader[Any], collate_fn: Collate | None) -> Any:
    """Return the examples of a loader of test examples.

    Raises:
        ValueError: if it repeats or omits examples, or has another `collate_fn`.
    """
    sampler, _ = _sampler(loader)
    dataset, weights = _sampled(loader.dataset, sampler)
    if weights is not None:
        raise ValueError("the loader of the test examples draws them with replacement: give it shuffle=False.")
    if not is_graph(loader.collate_fn) and _collate_fn(loader) != collate_fn:
        raise ValueError(
            "the loaders of the training and the test examples have different collate_fn: give both the same one."
        )
    return dataset
