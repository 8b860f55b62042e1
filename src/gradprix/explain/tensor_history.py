"""History of one parameter tensor during training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

KEPT = 64
"""Number of coordinates recorded per tensor: all of a small one, a sample of a large one."""


@dataclass(frozen=True)
class TensorHistory:
    """History of one parameter tensor.

    Terms are recorded for the coordinates in `index`, all of them for small tensors. Norms are of the whole tensor.

    Args:
        index: recorded coordinates of the flattened tensor; None on a landscape, where all are recorded in their shape.
        points: before each step and after the last, `[steps + 1, recorded]`.
        gradients: raw gradients, before weight decay, `[steps, recorded]`.
        terms: named terms of the rule including state, `[steps, recorded]` each, scalars as `[steps]`.
        lengths: norms of `update`, `gradient` and `weights`, `[steps]` each.
        along: projection of each update on its negative gradient, −u · g, `[steps]`.
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
    """Recorder of one parameter tensor."""

    def __init__(self, x: Tensor, whole: bool) -> None:
        self.index = None if whole else _sample(x.numel())
        self.points: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.terms: dict[str, list[Any]] = {}
        self.lengths: dict[str, list[Tensor]] = {"update": [], "gradient": [], "weights": []}
        self.along: list[Tensor] = []

    def add(self, x: Tensor, g: Tensor, moved: Mapping[str, Any]) -> None:
        """Record a step from x to `moved["x"]`."""
        update = moved["x"] - x
        self.points.append(self._select(x))
        self.gradients.append(self._select(g))
        for name, value in moved.items():
            if not isinstance(value, Tensor) or not value.dim() or value.numel() == x.numel():  # no product of matrices
                self.terms.setdefault(name, []).append(self._select(value))
        dim = None if self.index is not None else -1
        for name, value in (("update", update), ("gradient", g), ("weights", x)):
            self.lengths[name].append(torch.linalg.vector_norm(value, dim=dim))
        self.along.append(-(update * g).sum(dim))

    def end(self, x: Tensor) -> None:
        """Record the point after the last step."""
        self.points.append(self._select(x))

    def layer(self) -> TensorHistory:
        """Return the history."""
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
    """Return the indices of the recorded coordinates."""
    if count <= KEPT:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(count))[:KEPT].sort().values


def _tensor(value: Any) -> Tensor:
    """Convert a term to a tensor in double precision."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
