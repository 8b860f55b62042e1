"""History of one parameter tensor during training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

KEPT = 64
"""Maximum number of coordinates recorded per tensor; of larger tensors, a random sample is recorded."""


@dataclass(frozen=True)
class TensorHistory:
    """History of one parameter tensor.

    Points, gradients and terms are recorded for a sample of coordinates, norms for the whole tensor.

    Args:
        index: indices of the recorded coordinates in the flattened tensor; None on a landscape, where all coordinates
            are recorded and `recorded` stands for the shape of the points.
        points: weights before each step and after the last, `[steps + 1, recorded]`.
        gradients: gradients before weight decay is added, `[steps, recorded]`.
        terms: value of each variable of the rule, including its state, `[steps, recorded]`, or `[steps]` for scalars.
        lengths: norms of `update`, `gradient` and `weights`, `[steps]` each.
        along: product of each update and the negative gradient, −u · g, `[steps]`.
    """

    index: Tensor | None
    points: Tensor
    gradients: Tensor
    terms: Mapping[str, Tensor]
    lengths: Mapping[str, Tensor]
    along: Tensor

    @property
    def updates(self) -> Tensor:
        """Update of each recorded coordinate, `[steps, recorded]`."""
        return self.points[1:] - self.points[:-1]

    @property
    def rates(self) -> Tensor:
        """Effective learning rate of each recorded coordinate, |update| / |gradient|, `[steps, recorded]`."""
        return self.updates.abs() / self.gradients.abs()

    @property
    def rate(self) -> Tensor:
        """Effective learning rate of the tensor, ‖update‖ / ‖gradient‖, `[steps]`."""
        return self.lengths["update"] / self.lengths["gradient"]

    @property
    def ratio(self) -> Tensor:
        """Update-to-weight ratio, ‖update‖ / ‖weights‖, `[steps]`."""
        return self.lengths["update"] / self.lengths["weights"]

    @property
    def cosine(self) -> Tensor:
        """Cosine between each update and the negative gradient, `[steps]`."""
        return self.along / (self.lengths["update"] * self.lengths["gradient"])


class TensorRecorder:
    """Recorder of the history of one parameter tensor.

    Args:
        x: the tensor.
        whole: record all coordinates, and norms per row, as on a landscape.
    """

    def __init__(self, x: Tensor, whole: bool) -> None:
        self.index = None if whole else _sample(x.numel())
        self.points: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.terms: dict[str, list[Any]] = {}
        self.lengths: dict[str, list[Tensor]] = {"update": [], "gradient": [], "weights": []}
        self.along: list[Tensor] = []

    def add(self, x: Tensor, g: Tensor, moved: Mapping[str, Any]) -> None:
        """Record a step.

        Args:
            x: the tensor before the step.
            g: its gradient.
            moved: variables of the rule by name; `moved["x"]` is the tensor after the step.
        """
        update = moved["x"] - x
        self.points.append(self._select(x))
        self.gradients.append(self._select(g))
        for name, value in moved.items():
            if not isinstance(value, Tensor) or not value.dim() or value.numel() == x.numel():  # omit matrix products
                self.terms.setdefault(name, []).append(self._select(value))
        dim = None if self.index is not None else -1
        for name, value in (("update", update), ("gradient", g), ("weights", x)):
            self.lengths[name].append(torch.linalg.vector_norm(value, dim=dim))
        self.along.append(-(update * g).sum(dim))

    def end(self, x: Tensor) -> None:
        """Record the tensor after the last step."""
        self.points.append(self._select(x))

    def layer(self) -> TensorHistory:
        """Return the recorded history."""
        terms = {name: torch.stack([_tensor(value) for value in values]) for name, values in self.terms.items()}
        lengths = {name: torch.stack(values) for name, values in self.lengths.items()}
        return TensorHistory(
            self.index, torch.stack(self.points), torch.stack(self.gradients), terms, lengths, torch.stack(self.along)
        )

    def _select(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.dim():
            return value
        return value.clone() if self.index is None else value.reshape(-1)[self.index]


def _sample(count: int) -> Tensor:
    """Return the indices of the coordinates to record for a tensor with `count` elements."""
    if count <= KEPT:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(count))[:KEPT].sort().values


def _tensor(value: Any) -> Tensor:
    """Convert a term to a tensor in double precision."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
