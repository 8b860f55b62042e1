"""Examples, and how a seed divides them."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_leaves, tree_map, tree_map_with_path

from .rng import Luck, stream
from .tensors import as_tensor, cure_for


@dataclass(frozen=True)
class Split:
    """Indices of the examples to train on, to tune by, and to judge by."""

    train: Tensor
    valid: Tensor
    test: Tensor


class Data:
    """All examples of a task, in memory.

    Args:
        inputs: `[examples, ...]`: a tensor, an array, a data frame or a list of numbers. A tuple or a dictionary of
            these where the model takes several: it is called with `*inputs` or `**inputs`. Arrays of float64 become
            torch's default dtype, which networks have.
        targets: `[examples, ...]`, likewise.
        test: indices of the official test examples; without them the seed draws a fifth, so that runs under one seed
            share their split and runs under different seeds do not.
        stratify: whether classes are divided in equal shares (targets are class numbers).

    Raises:
        TypeError: for what holds no numbers, or holds them in a form whose meaning would be lost (masked arrays, sparse
            tensors, columns of dates or categories), with what to give instead.
        ValueError: when inputs and targets differ in number or are too few, or `test` does not number some of them.
    """

    def __init__(self, inputs: Any, targets: Any = None, test: Any = None, stratify: bool = False) -> None:
        if targets is None:
            cure = cure_for(inputs) or (
                "give gp.Data(inputs, targets), or gp.Data.of(dataset) for what has a length and numbered items."
            )
            raise TypeError(f"there are no targets beside the {type(inputs).__name__}: {cure}")
        self.inputs, self.targets = _tensors(inputs, "inputs"), _tensors(targets, "targets")
        counts = {len(x) for x in tree_leaves((self.inputs, self.targets))}
        if len(counts) > 1:
            theirs = [min((len(x) for x in tree_leaves(part)), default=0) for part in (self.inputs, self.targets)]
            raise ValueError(f"{theirs[0]} inputs but {theirs[1]} targets: give one target an input.")
        self._set_up(counts.pop() if counts else 0, test, stratify)

    @classmethod
    def of(
        cls,
        dataset: Any,
        test: Any = None,
        *,
        targets: str | None = None,
        stratify: bool = False,
        memory: float | None = None,
    ) -> "Data":
        """The examples of a `torch.utils.data.Dataset`, or of anything that has a length and numbered items.

        They are read once, if all of them fit in memory. If not, or if reading an example twice gives two things, as
        random crops do, they are read whenever they are needed, with random numbers that the seed decides.

        Args:
            dataset: its items are `(input, target)`, `(input, input, ..., target)` or mappings.
            test: the official test examples: another dataset, or indices into this one.
            targets: the key of the target, where items are mappings; all other keys are inputs.
            stratify: whether classes are divided in equal shares (targets are class numbers).
            memory: GB that examples may take; a quarter of what is free when None.

        Raises:
            TypeError: for a dataset without a length, and for items that hold no numbers.
            ValueError: for items of other forms or of different shapes.
        """
        from .lazy_dataset import data_of

        return data_of(dataset, test, targets=targets, stratify=stratify, memory=memory)

    def _set_up(self, count: int, test: Any, stratify: bool) -> None:
        if count < FEWEST:
            raise ValueError(f"there are {count} examples: to train, tune and judge there must be {FEWEST} or more.")
        self.count, self.stratify = count, stratify
        self.test = None if test is None else torch.as_tensor(test)
        if self.test is not None and not _numbers_some(self.test, count):
            raise ValueError("test must be a list of different example numbers (int64), and leave some to train on.")
        if self.test is not None and count - len(self.test) < FEWEST:
            raise ValueError(
                f"test leaves {count - len(self.test)} examples: to train and to tune there must be {FEWEST}."
            )
        self._splits: dict[int, Split] = {}

    def take(self, index: Tensor, luck: Sequence[Luck] = ()) -> tuple[Any, Any]:
        """Inputs and targets of some examples.

        Args:
            index: their numbers, `[seeds, batch]` or more such rows.
            luck: each row's random numbers, for examples that are made anew each time.

        Returns:
            `[seeds, batch, ...]` each.
        """
        return tree_map(itemgetter(index), self.inputs), tree_map(itemgetter(index), self.targets)

    @property
    def labels(self) -> Tensor:
        """The targets, where they are class numbers."""
        if not isinstance(self.targets, Tensor) or self.targets.dim() != 1 or self.targets.is_floating_point():
            raise ValueError("stratify is for targets that are class numbers, one an example.")
        return self.targets

    @property
    def nbytes(self) -> int:
        """How much memory they take in every process."""
        return sum(x.nbytes for x in tree_leaves((self.inputs, self.targets)))

    @property
    def identity(self) -> Any:
        """What a task's fingerprint has of them."""
        return self.inputs, self.targets, self.test, self.stratify

    def __len__(self) -> int:
        return self.count

    def split(self, seed: int) -> Split:
        """How this seed divides the examples: 60/20/20, or 80/20 of what an official test set leaves."""
        if seed not in self._splits:
            self._splits[seed] = self._divided(seed)
        return self._splits[seed]

    def _divided(self, seed: int) -> Split:
        everything = torch.arange(len(self))
        if self.test is None:
            rest, test = self._cut(everything, 5, stream(seed, "test"))
            train, valid = self._cut(rest, 4, stream(seed, "valid"))
        else:
            test = self.test
            rest = everything[~torch.isin(everything, test)]
            train, valid = self._cut(rest, 5, stream(seed, "valid"))
        return Split(train, valid, test)

    def _cut(self, indices: Tensor, one_in: int, luck: torch.Generator) -> tuple[Tensor, Tensor]:
        """Most of the indices, and one in so many of them, by chance."""
        order = indices[torch.randperm(len(indices), generator=luck)]
        if self.stratify:
            order = order[self.labels[order].argsort(stable=True)]  # so that it is one in so many of each class
        chosen = torch.arange(len(order)) % one_in == 0
        return order[~chosen], order[chosen]


FEWEST = 5
"""Examples below which some part of them would be empty."""


def _tensors(value: Any, name: str) -> Any:
    if isinstance(value, tuple | dict):
        return tree_map_with_path(
            lambda path, each: _tensors(each, name + keystr(path)), value, is_leaf=lambda each: each is not value
        )
    found = as_tensor(value, name)
    if found.dim() == 0:
        raise TypeError(f"{name} is one number: give one for each example.")
    return found


def _numbers_some(indices: Tensor, count: int) -> bool:
    """Whether these are different numbers from 0 to `count`, and not all of them."""
    if indices.dtype != torch.int64 or indices.dim() != 1 or not 0 < len(indices) < count:
        return False
    return bool((indices >= 0).all() and (indices < count).all()) and len(set(indices.tolist())) == len(indices)
