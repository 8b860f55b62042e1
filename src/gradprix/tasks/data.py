"""Examples of a task and their splits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_leaves, tree_map, tree_map_with_path

from .batches import Targets
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

    Attributes:
        batch_size: batch size of the loader that the examples come from; None if there is none.
        weights: relative probabilities with which examples are drawn for training, with replacement, `[examples]`; None
            if every epoch uses each training example once.
        is_collated: True if a `collate_fn` makes the batches, so that shapes may differ between them.

    Raises:
        TypeError: for values that are not numeric, or whose meaning would be lost (masked arrays, sparse tensors,
            columns of dates or categories). The message names an alternative.
        ValueError: if the numbers of inputs and targets differ, if there are too few examples, or if `test` is not a
            valid subset of their indices.
    """

    batch_size: int | None = None
    weights: Tensor | None = None
    is_collated: bool = False

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
        targets: Targets = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        length: int | None = None,
        stratify: bool = False,
        memory: float | None = None,
    ) -> "Data":
        """Load the examples of a `torch.utils.data.Dataset`, or of any object with `__len__` and `__getitem__`.

        Examples that fit in memory are read once. Otherwise, with a `collate_fn`, or if reading an example draws random
        numbers or gives other values the second time, as with random crops, examples are read for every batch, with
        random numbers determined by the seed of the run.

        Args:
            dataset: the dataset; its items must be `(input, target)`, `(input, input, ..., target)`, mappings, or
                graphs of torch_geometric. With a `collate_fn`, they may have any type.
            test: the official test examples: another dataset, or indices into `dataset`.
            targets: key of the target if items are mappings, or field if they are named tuples; all others are
                inputs. For several targets, a list. For graphs and other objects, the attribute of the target; `"y"`
                if None.
            collate_fn: function that makes a batch of a list of items, as in a `DataLoader`. It returns `(inputs,
                targets)`, a mapping, or an object such as a `torch_geometric` batch. Models are trained one at a time
                if batches differ in shape.
            length: number of items of an iterable dataset that are read into memory.
            stratify: split each class in equal proportions (targets are class indices).
            memory: memory limit for the examples in GB; a quarter of the free memory if None.

        Raises:
            TypeError: for a dataset without a length, and for items that are not numeric.
            ValueError: for items of other forms or of different shapes.
        """
        from .lazy_dataset import load_dataset

        return load_dataset(
            dataset, test, targets=targets, collate_fn=collate_fn, length=length, stratify=stratify, memory=memory
        )

    of = from_dataset  # former name

    @classmethod
    def from_loader(
        cls,
        loader: Any,
        test: Any = None,
        *,
        targets: Targets = None,
        length: int | None = None,
        stratify: bool = False,
        memory: float | None = None,
    ) -> "Data":
        """Load the examples of a `torch.utils.data.DataLoader`, with its batch size, `collate_fn` and sampler.

        A task without a `batch_size` takes that of the loader. Examples are shuffled by the seed of each run: the order
        of the loader's sampler is not used. A `SubsetRandomSampler` selects examples; a `WeightedRandomSampler` draws
        the training examples of an epoch with replacement. All batches are used, regardless of `drop_last`, and are
        read in the process that trains, regardless of `num_workers`.

        Args:
            loader: the loader.
            test: the official test examples: another loader, a dataset, or indices into the dataset of `loader`. They
                are collated by the `collate_fn` of `loader`.
            targets: as in `from_dataset`.
            length: as in `from_dataset`.
            stratify: as in `from_dataset`.
            memory: as in `from_dataset`.

        Raises:
            TypeError: if it is not a loader, or one that makes its batches in a way of its own.
            ValueError: for samplers whose order cannot be drawn by the seed of a run, and as in `from_dataset`.

        Example:
            >>> from torch.utils.data import DataLoader, TensorDataset
            >>> loader = DataLoader(TensorDataset(torch.rand(50, 4), torch.rand(50)), batch_size=10, shuffle=True)
            >>> data = Data.from_loader(loader)
            >>> len(data), data.batch_size
            (50, 10)
        """
        from .loaders import load_loader

        return load_loader(loader, test, targets=targets, length=length, stratify=stratify, memory=memory)

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
    def ragged(self) -> str | None:
        """The type of value because of which batches cannot be stacked, `"Tensor"` if their shapes differ.

        None if all batches of equal size have one shape.
        """
        return None

    @property
    def contents(self) -> tuple[Any, ...]:
        """The examples, as they enter a task's fingerprint."""
        return self.inputs, self.targets

    @property
    def identity(self) -> Any:
        """The part of a task's fingerprint that identifies the data."""
        weights = () if self.weights is None else (self.weights,)
        return *self.contents, self.test, self.stratify, *weights

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

    def shuffle(self, train: Tensor, generator: torch.Generator) -> Tensor:
        """Return the order of the training examples in an epoch, as positions in `train`.

        Args:
            train: indices of the training examples, on the CPU.
            generator: random generator of the seed.

        Raises:
            ValueError: if no training example has a positive weight.
        """
        if self.weights is None:
            return torch.randperm(len(train), generator=generator)
        weights = self.weights[train]
        if not weights.any():
            raise ValueError("the weights of all training examples are zero: give more examples a positive weight.")
        return torch.multinomial(weights, len(train), replacement=True, generator=generator)

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
