"""Examples, and how a seed divides them."""

from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from ._seeds import stream


@dataclass(frozen=True)
class Split:
    """Indices of the examples to train on, to tune by, and to judge by."""

    train: Tensor
    valid: Tensor
    test: Tensor


@dataclass(frozen=True, eq=False)
class Data:
    """All examples of a task.

    Args:
        inputs: `[examples, ...]`.
        targets: `[examples, ...]`.
        test: indices of the official test examples; without them the seed draws a fifth, so that runs under one seed
            share their split and runs under different seeds do not.
        stratify: whether classes are divided in equal shares (targets are class numbers).

    Raises:
        TypeError: for anything but tensors.
        ValueError: when inputs and targets differ in number, or `test` does not number some of the examples.
    """

    inputs: Tensor
    targets: Tensor
    test: Tensor | None = None
    stratify: bool = False
    _splits: dict[int, Split] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("inputs", "targets", "test"):
            value = getattr(self, name)
            if not isinstance(value, Tensor) and not (name == "test" and value is None):
                raise TypeError(f"{name} is a {type(value).__name__}: give a tensor, as torch.as_tensor makes one.")
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"{len(self.inputs)} inputs but {len(self.targets)} targets: give one target an input.")
        if self.test is not None and not _numbers_some(self.test, len(self.inputs)):
            raise ValueError("test must be a list of different example numbers (int64), and leave some to train on.")

    def split(self, seed: int) -> Split:
        """How this seed divides the examples: 60/20/20, or 80/20 of what an official test set leaves."""
        if seed not in self._splits:
            self._splits[seed] = self._divided(seed)
        return self._splits[seed]

    def _divided(self, seed: int) -> Split:
        everything = torch.arange(len(self.inputs))
        if self.test is None:
            rest, test = self._cut(everything, 0.2, seed, "test")
            train, valid = self._cut(rest, 0.25, seed, "valid")
        else:
            test = self.test
            rest = everything[~torch.isin(everything, test)]
            train, valid = self._cut(rest, 0.2, seed, "valid")
        return Split(train, valid, test)

    def _cut(self, indices: Tensor, share: float, seed: int, purpose: str) -> tuple[Tensor, Tensor]:
        random = np.random.RandomState(stream(seed, purpose).initial_seed() % 2**32)
        labels = self.targets[indices].numpy() if self.stratify else None
        most, some = train_test_split(indices.numpy(), test_size=share, stratify=labels, random_state=random)
        return torch.from_numpy(most), torch.from_numpy(some)


def _numbers_some(indices: Tensor, count: int) -> bool:
    """Whether these are different numbers from 0 to `count`, and not all of them."""
    if indices.dtype != torch.int64 or indices.dim() != 1 or not 0 < len(indices) < count:
        return False
    return bool((indices >= 0).all() and (indices < count).all()) and len(set(indices.tolist())) == len(indices)
