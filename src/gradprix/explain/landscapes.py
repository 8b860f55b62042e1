"""Two-dimensional test functions for optimizers, with gradients by autograd."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

Box = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Landscape:
    """A loss of two coordinates.

    Args:
        name: short identifier.
        value: function `[..., 2] -> [...]` of torch operations.
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

    def gradient(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Return the loss and its gradient at some points.

        Args:
            x: points, `[..., 2]`.
            generator: generator of the gradient noise, which is the same for all points; None for exact gradients.

        Returns:
            Loss without noise, `[...]`, and gradients, `[..., 2]`.
        """
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            values = self.value(point)
            (gradient,) = torch.autograd.grad(values.sum(), point)
        if generator is not None and self.noise:
            gradient = gradient + self.noise * torch.randn(2, generator=generator, dtype=x.dtype)
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


@cache
def bowl(curvature: float = 1.0) -> Landscape:
    """Isotropic bowl, ½ c (x² + y²): gradient descent converges for η < 2 / c and diverges above."""
    return Landscape(
        "bowl",
        lambda p: 0.5 * curvature * (p**2).sum(-1),
        ((-2.5, 2.5), (-2.5, 2.5)),
        (-2.0, 1.2),
        ((0.0, 0.0),),
        about="A round bowl: all directions have the same curvature.",
    )


@cache
def ravine(condition: float = 30.0, angle: float = 0.0) -> Landscape:
    """Anisotropic quadratic, ½ (u² + κ v²): curvature differs by a factor κ between the axes.

    Args:
        condition: κ, the ratio of the largest to the smallest curvature.
        angle: rotation in degrees; coordinate-wise learning rates help only if the ravine is parallel to an axis.
    """
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))

    def value(p: Tensor) -> Tensor:
        u, v = c * p[..., 0] + s * p[..., 1], c * p[..., 1] - s * p[..., 0]
        return 0.5 * (u**2 + condition * v**2)

    return Landscape(
        "ravine",
        value,
        ((-5.0, 2.5), (-2.5, 2.5)),
        (-4.2, 0.9),
        ((0.0, 0.0),),
        about=f"A ravine, {condition:g} times as steep across as along: momentum helps.",
    )


@cache
def rosenbrock() -> Landscape:
    """Rosenbrock function, (1 − x)² + 100 (y − x²)² (Rosenbrock 1960, doi:10.1093/comjnl/3.3.175)."""
    return Landscape(
        "rosenbrock",
        lambda p: (1 - p[..., 0]) ** 2 + 100 * (p[..., 1] - p[..., 0] ** 2) ** 2,
        ((-2.0, 2.0), (-1.0, 3.0)),
        (-1.2, 1.0),
        ((1.0, 1.0),),
        about="A curved ravine with an almost flat floor: the direction of descent keeps changing.",
    )


@cache
def beale() -> Landscape:
    """Beale function, (1.5 − x + xy)² + (2.25 − x + xy²)² + (2.625 − x + xy³)² (Beale 1958)."""

    def value(p: Tensor) -> Tensor:
        x, y = p[..., 0], p[..., 1]
        return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2

    return Landscape(
        "beale",
        value,
        ((-2.0, 4.5), (-2.0, 2.5)),
        (1.0, 1.5),
        ((3.0, 0.5),),
        about="Flat in the middle, very steep at the corners: gradients of very different sizes.",
    )


@cache
def himmelblau() -> Landscape:
    """Himmelblau function, (x² + y − 11)² + (x + y² − 7)² (Himmelblau 1972)."""
    return Landscape(
        "himmelblau",
        lambda p: (p[..., 0] ** 2 + p[..., 1] - 11) ** 2 + (p[..., 0] + p[..., 1] ** 2 - 7) ** 2,
        ((-6.0, 6.0), (-6.0, 6.0)),
        (-0.3, -1.0),
        ((3.0, 2.0), (-2.805118, 3.131312), (-3.779310, -3.283186), (3.584428, -1.848126)),
        about="Four minima of equal depth: which one is reached depends on starting point and optimizer.",
    )


@cache
def saddle() -> Landscape:
    """Saddle at the origin, x² − y² + y⁴ / 4, with minima at y = ±√2."""
    return Landscape(
        "saddle",
        lambda p: p[..., 0] ** 2 - p[..., 1] ** 2 + 0.25 * p[..., 1] ** 4,
        ((-2.0, 2.0), (-2.2, 2.2)),
        (-1.5, 0.01),
        ((0.0, math.sqrt(2)), (0.0, -math.sqrt(2))),
        about="A saddle: descent leads to a point from which the way down is sideways and almost flat.",
    )


@cache
def plateau() -> Landscape:
    """Hole in a plateau, 1 − exp(−(x² + y²) / 2) plus a slight slope: gradients vanish far from the minimum."""
    return Landscape(
        "plateau",
        lambda p: 1 - torch.exp(-0.5 * (p**2).sum(-1)) + 5e-4 * (p**2).sum(-1),
        ((-5.0, 5.0), (-5.0, 5.0)),
        (-4.0, 2.5),
        ((0.0, 0.0),),
        about="A minimum in a plateau: far from it the gradient almost vanishes.",
    )


@cache
def cliff() -> Landscape:
    """Gentle slope that ends in a cliff: the gradient there is fifty times larger."""
    return Landscape(
        "cliff",
        lambda p: 0.05 * (p[..., 0] - 3) ** 2 + 0.2 * p[..., 1] ** 2 + 3 * torch.sigmoid(-12 * (p[..., 0] + 1)),
        ((-4.0, 5.0), (-3.0, 3.0)),
        (-3.0, 1.5),
        ((3.0, 0.0),),
        about="A cliff in a gentle slope: one gradient is many times as large as all others.",
    )


@cache
def noisy(noise: float = 0.5) -> Landscape:
    """Quadratic ½ (x² + 4 y²) with gradient noise, as from mini-batches.

    Args:
        noise: standard deviation per coordinate; a batch of b examples has 1 / √b of the noise of one example.
    """
    return Landscape(
        "noisy",
        lambda p: 0.5 * (p[..., 0] ** 2 + 4 * p[..., 1] ** 2),
        ((-2.5, 2.5), (-2.0, 2.0)),
        (-2.0, 1.2),
        ((0.0, 0.0),),
        noise=noise,
        about="A bowl with noisy gradients, as from small batches: which optimizers converge?",
    )


LANDSCAPES: dict[str, Callable[..., Landscape]] = {
    make.__name__: make for make in (bowl, ravine, rosenbrock, beale, himmelblau, saddle, plateau, cliff, noisy)
}
"""Functions that create the landscapes, by name; `bowl`, `ravine` and `noisy` have parameters."""
