"""Registry of the situations, and the parts that they share."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import gradprix as gp


@dataclass(frozen=True)
class Situation:
    """A training problem of a kind that people bring.

    Args:
        title: description, as a phrase.
        build: function that returns a `gp.Task`, or a training loop `train(make_optimizer, seed)`.
        kind: name of its module.
        needs: modules of other packages that it imports.
        tolerance: largest relative difference of the losses from a plain PyTorch loop that counts as equal numbers.
        is_mistake: True if the problem contains a user's mistake, which must be refused with the remedy.
    """

    title: str
    build: Callable[[], Any]
    kind: str
    needs: tuple[str, ...] = ()
    tolerance: float = 1e-4
    is_mistake: bool = False

    @property
    def missing(self) -> list[str]:
        """The modules that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


SITUATIONS: dict[str, Situation] = {}
"""Situations by the name of their function."""


def situation(*needs: str, **options: Any) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Register the decorated function as a situation, whose title is the docstring; see `Situation`."""

    def register(build: Callable[[], Any]) -> Callable[[], Any]:
        title = (build.__doc__ or "").rstrip(".")
        SITUATIONS[build.__name__] = Situation(title, build, build.__module__.rpartition(".")[2], needs, **options)
        return build

    return register


def accuracy(outputs: Any, targets: Tensor) -> Tensor:
    """Return the share of correct classifications."""
    return (outputs.argmax(-1) == targets).double().mean()


ACCURACY = gp.Metric("accuracy", accuracy, higher_is_better=True, margin=0.01, percent=True)
ERROR = gp.Metric("squared error", functional.mse_loss, higher_is_better=False, margin=0.02, relative=True)

Classes = partial(gp.Task, loss=functional.cross_entropy, metric=ACCURACY, baseline=0.25, batch_size=16, epochs=2)
"""A classification task with four classes."""


def random(*shape: int, seed: int = 0) -> Tensor:
    """Return normally distributed numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def integers(high: int, *shape: int, seed: int = 1) -> Tensor:
    """Return random integers from 0 to `high` - 1."""
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def pictures(examples: int = 160) -> gp.Data:
    """Return random images, `[examples, 3, 16, 16]`, with four classes that depend on their mean colours."""
    x = random(examples, 3, 16, 16)
    y = integers(4, examples)
    return gp.Data(x + 0.5 * torch.nn.functional.one_hot(y, 4)[:, :3, None, None], y)


def table(examples: int = 200, features: int = 12) -> tuple[Tensor, Tensor]:
    """Return features, `[examples, features]`, and the index of the largest of the first four as class."""
    x = random(examples, features)
    return x, x[:, :4].argmax(1)
