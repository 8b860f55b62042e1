"""Examples of a task and their splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_leaves, tree_map, tree_map_with_path

from .rng import RngState, stream
from .tensors import as_tensor, suggest_fix


@dataclass(frozen=True)
class Split:
    """Indices of the training, validation and test examples."""

    train: Tensor
    valid: Tensor
    test: Tensor


class Data:
    """Examples of a task, held in memory.

    Args:
        inputs: `[examples, ...]`, a tensor, array, data frame or list of numbers. For models with several inputs, a
            tuple or dictionary of these; the model is called with `*inputs` or `**inputs`. Arrays of float64 are
            converted to torch's default dtype, as used by networks.
        targets: `[examples, ...]`, of the same types as `inputs`.
        test: indices of the official test examples. If None, a random fifth of the examples is held out, selected by
            the seed of each run, so that runs with equal seeds share their split.
        stratify: split each class in equal proportions (targets are class indices).

    Raises:
        TypeError: for values that are not numeric, or whose meaning would be lost (masked arrays, sparse tensors,
            columns of dates or categories). The message names an alternative.
        ValueError: if the numbers of inputs and targets differ, if there are too few examples, or if `test` is not a
            valid subset of their indices.
    """

    def __init__(self, inputs: Any, targets: Any = None, test: Any = None, stratify: bool = False) -> None:
        if targets is None:
            cure = suggest_fix(inputs) or (
                "give gp.Data(inputs, targets), or gp.Data.from_dataset(dataset) for a map-style dataset."
            )
            raise TypeError(f"there are no targets besides the {type(inputs).__name__}: {cure}")
        self.inputs, self.targets = _tensors(inputs, "inputs"), _tensors(targets, "targets")
        counts = {len(x) for x in tree_leaves((self.inputs, self.targets))}
        if len(counts) > 1:
            inputs_count, targets_count = (
                min((len(x) for x in tree_leaves(part)), default=0) for part in (self.inputs, self.targets)
            )
            raise ValueError(f"{inputs_count} inputs but {targets_count} targets: give one target per input.")
        self._set_up(counts.pop() if counts else 0, test, stratify)

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        test: Any = None,
        *,
        targets: str | None = None,
        stratify: bool = False,
        memory: float | None = None,
    ) -> "Data":
        """Load the examples of a `torch.utils.data.Dataset`, or of any object with `__len__` and `__getitem__`.

        Examples that fit in memory are read once. Otherwise, or if reading an example twice gives different values, as
        with random crops, examples are read for every batch, with random numbers determined by the seed of the run.

        Args:
            dataset: the dataset; its items must be `(input, target)`, `(input, input, ..., target)` or mappings.
            test: the official test examples: another dataset, or indices into `dataset`.
            targets: key of the target if items are mappings; all other keys are inputs.
            stratify: split each class in equal proportions (targets are class indices).
            memory: memory limit for the examples in GB; a quarter of the free memory if None.

        Raises:
            TypeError: for a dataset without a length, and for items that are not numeric.
            ValueError: for items of other forms or of different shapes.
        """
        from .lazy_dataset import load_dataset

        return load_dataset(dataset, test, targets=targets, stratify=stratify, memory=memory)

    of = from_dataset  # former name

    def _set_up(self, count: int, test: Any, stratify: bool) -> None:
        if count < MIN_EXAMPLES:
            raise ValueError(f"there are {count} examples: training, validation and test need {MIN_EXAMPLES} or more.")
        self.count, self.stratify = count, stratify
        self.test = None if test is None else torch.as_tensor(test)
        if self.test is not None and not _is_proper_subset(self.test, count):
            raise ValueError("test must be distinct indices of examples (int64), and leave some to train on.")
        if self.test is not None and count - len(self.test) < MIN_EXAMPLES:
            raise ValueError(
                f"test leaves {count - len(self.test)} examples: training and validation need {MIN_EXAMPLES} or more."
            )
        self._splits: dict[int, Split] = {}

    def take(self, index: Tensor, rng_states: Sequence[RngState] = ()) -> tuple[Any, Any]:
        """Return the inputs and targets of the examples with the given indices.

        Args:
            index: indices of examples, `[seeds, batch]`.
            rng_states: random state of each row, for randomly augmented examples; unused for examples in memory.

        Returns:
            Inputs and targets, `[seeds, batch, ...]` each.
        """
        return _chosen(self.inputs, index), _chosen(self.targets, index)

    @property
    def labels(self) -> Tensor:
        """The targets, which must be class indices.

        Raises:
            ValueError: if the targets are not one integer per example.
        """
        if not isinstance(self.targets, Tensor) or self.targets.dim() != 1 or self.targets.is_floating_point():
            raise ValueError("stratify requires targets that are class indices, one per example.")
        return self.targets

    @property
    def nbytes(self) -> int:
        """Memory use in each process, in bytes."""
        return sum(x.nbytes for x in tree_leaves((self.inputs, self.targets)))

    @property
    def identity(self) -> Any:
        """The part of a task's fingerprint that identifies the data."""
        return self.inputs, self.targets, self.test, self.stratify

    def __len__(self) -> int:
        return self.count

    def split(self, seed: int) -> Split:
        """Return the random split into training, validation and test examples for a seed.

        The proportions are 60/20/20. If there are official test examples, all other examples are split 80/20 into
        training and validation examples.
        """
        if seed not in self._splits:
            self._splits[seed] = self._make_split(seed)
        return self._splits[seed]

    def _make_split(self, seed: int) -> Split:
        everything = torch.arange(len(self))
        if self.test is None:
            rest, test = self._cut(everything, 5, stream(seed, "test"))
            train, valid = self._cut(rest, 4, stream(seed, "valid"))
        else:
            test = self.test
            rest = everything[~torch.isin(everything, test)]
            train, valid = self._cut(rest, 5, stream(seed, "valid"))
        return Split(train, valid, test)

    def _cut(self, indices: Tensor, one_in: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Split indices at random into two parts; the second part contains one of every `one_in` indices."""
        order = indices[torch.randperm(len(indices), generator=generator)]
        if self.stratify:
            # Sorted by class, so that every part gets the same share of each class.
            order = order[self.labels[order].argsort(stable=True)]
        chosen = torch.arange(len(order)) % one_in == 0
        return order[~chosen], order[chosen]


MIN_EXAMPLES = 5
"""Minimum number of examples; with fewer, a part of the split would be empty."""


def _tensors(value: Any, name: str) -> Any:
    if isinstance(value, tuple | dict):
        return tree_map_with_path(
            lambda path, each: _tensors(each, name + keystr(path)), value, is_leaf=lambda each: each is not value
        )
    tensor = as_tensor(value, name)
    if tensor.dim() == 0:
        raise TypeError(f"{name} is a single number: give one per example.")
    return tensor


def _is_proper_subset(indices: Tensor, count: int) -> bool:
    """Return True if `indices` are distinct integers from 0 to `count` - 1, at least one, and not all of them."""
    if indices.dtype != torch.int64 or indices.dim() != 1 or not 0 < len(indices) < count:
        return False
    return bool((indices >= 0).all() and (indices < count).all()) and len(set(indices.tolist())) == len(indices)


def _chosen(examples: Any, index: Tensor) -> Any:
    return examples[index] if isinstance(examples, Tensor) else tree_map(itemgetter(index), examples)
