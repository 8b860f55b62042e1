"""What is kept of a tensor of parameters as an optimizer moves it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

KEPT = 64
"""Coordinates of each tensor whose terms are kept: all of a small one, a sample of a large one."""


@dataclass(frozen=True)
class Layer:
    """What happened to one tensor of parameters.

    A *kept* coordinate is one of `index`, all of them where there are few. Lengths are of the whole tensor.

    Args:
        index: which coordinates were kept, of the flattened tensor; None on a landscape, where all are, in their shape.
        points: before each step and after the last, `[steps + 1, kept]`.
        gradients: `[steps, kept]`, as they came, before weight decay.
        terms: what the rule named on the way, `[steps, kept]` each, numbers as `[steps]`; state among it.
        lengths: of `update`, `gradient` and `weights`, `[steps]` each.
        along: how far each update goes against its gradient, −u · g, `[steps]`.
    """

    index: Tensor | None
    points: Tensor
    gradients: Tensor
    terms: Mapping[str, Tensor]
    lengths: Mapping[str, Tensor]
    along: Tensor

    @property
    def updates(self) -> Tensor:
        """What each step added to each kept coordinate, `[steps, kept]`."""
        return self.points[1:] - self.points[:-1]

    @property
    def rates(self) -> Tensor:
        """The effective learning rate of each kept coordinate, |update| / |gradient|, `[steps, kept]`."""
        return self.updates.abs() / self.gradients.abs()

    @property
    def rate(self) -> Tensor:
        """The effective learning rate of the tensor, ‖update‖ / ‖gradient‖, `[steps]`."""
        return self.lengths["update"] / self.lengths["gradient"]

    @property
    def ratio(self) -> Tensor:
        """How large each update is for the weights it is made to, ‖update‖ / ‖weights‖, `[steps]`."""
        return self.lengths["update"] / self.lengths["weights"]

    @property
    def cosine(self) -> Tensor:
        """How straight down each update goes: the cosine between it and the negative gradient, `[steps]`."""
        return self.along / (self.lengths["update"] * self.lengths["gradient"])


class Record:
    """What is kept of one tensor as it moves."""

    def __init__(self, x: Tensor, whole: bool) -> None:
        self.index = None if whole else _sample(x.numel())
        self.points: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.terms: dict[str, list[Any]] = {}
        self.lengths: dict[str, list[Tensor]] = {"update": [], "gradient": [], "weights": []}
        self.along: list[Tensor] = []

    def add(self, x: Tensor, g: Tensor, moved: Mapping[str, Any]) -> None:
        """A step from x to `moved["x"]`."""
        update = moved["x"] - x
        self.points.append(self._kept(x))
        self.gradients.append(self._kept(g))
        for name, value in moved.items():
            if not isinstance(value, Tensor) or not value.dim() or value.numel() == x.numel():  # no product of matrices
                self.terms.setdefault(name, []).append(self._kept(value))
        dim = None if self.index is not None else -1
        for name, value in (("update", update), ("gradient", g), ("weights", x)):
            self.lengths[name].append(torch.linalg.vector_norm(value, dim=dim))
        self.along.append(-(update * g).sum(dim))

    def end(self, x: Tensor) -> None:
        """The point after the last step."""
        self.points.append(self._kept(x))

    def layer(self) -> Layer:
        """What was kept."""
        terms = {name: torch.stack([_tensor(value) for value in values]) for name, values in self.terms.items()}
        lengths = {name: torch.stack(values) for name, values in self.lengths.items()}
        return Layer(
            self.index, torch.stack(self.points), torch.stack(self.gradients), terms, lengths, torch.stack(self.along)
        )

    def _kept(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.dim():
            return value
        return value.clone() if self.index is None else value.reshape(-1)[self.index]


def _sample(count: int) -> Tensor:
    """Which coordinates of so many are kept."""
    if count <= KEPT:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(count))[:KEPT].sort().values


def _tensor(value: Any) -> Tensor:
    """A term as a tensor; numbers are kept as precisely as they were computed."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
