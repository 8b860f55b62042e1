"""A loss of two coordinates, on which optimizers can be watched."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

Box = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Landscape:
    """A loss of two coordinates.

    Args:
        name: short identifier.
        value: function `[..., 2] -> [...]` of torch operations. If it has a method `gradient(points)`, gradients are
            computed with it, otherwise with autograd.
        box: region to show, `((x low, x high), (y low, y high))`.
        start: default starting point.
        minima: known global minima.
        noise: standard deviation of the noise added to each gradient coordinate at each step.
        about: description in one sentence.
    """

    name: str
    value: Callable[[Tensor], Tensor]
    box: Box
    start: tuple[float, float]
    minima: tuple[tuple[float, float], ...] = ()
    noise: float = 0.0
    about: str = ""

    def change(self, **given: Any) -> "Landscape":
        """Return a copy with some fields replaced."""
        return replace(self, **given)

    def gradient(self, x: Tensor, draw: Sequence[float] | None = None) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient at some points.

        Args:
            x: points, `[..., 2]`.
            draw: two standard normal numbers, which are multiplied by the standard deviation of the gradient noise and
                added to the gradient at all points; see `draw_noise`. None for exact gradients.

        Returns:
            Loss without noise, `[...]`, and gradients, `[..., 2]`.
        """
        point = x.detach()
        exact: Callable[[Tensor], Tensor] | None = getattr(self.value, "gradient", None)
        if exact is not None:
            values, gradient = self.value(point), exact(point)
        else:
            with torch.enable_grad():
                values = self.value(point.requires_grad_())
                (gradient,) = torch.autograd.grad(values.sum(), point)
        if draw is not None and self.noise:
            gradient = gradient + self.noise * torch.tensor(draw, dtype=x.dtype)
        return values.detach(), gradient

    def grid(self, size: int = 121) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate the landscape on a regular grid over its box.

        Args:
            size: number of grid points per side.

        Returns:
            The x coordinates of the columns, `[size]`, the y coordinates of the rows, `[size]`, and the loss,
            `[size, size]`, with rows first.
        """
        (x_low, x_high), (y_low, y_high) = self.box
        x = torch.linspace(x_low, x_high, size, dtype=torch.float64)
        y = torch.linspace(y_low, y_high, size, dtype=torch.float64)
        points = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
        with torch.no_grad():
            return x, y, self.value(points)
