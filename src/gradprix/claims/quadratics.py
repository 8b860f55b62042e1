"""Random quadratics for claims, evaluated in parallel, and descents on them by the rules of the library."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradprix.explain.descent import BEYOND
from gradprix.explain.tracing import step
from gradprix.rules import Rule, sgd
from gradprix.tasks.rng import stream
from gradprix.tuning.learning_rate_grid import grid_between

Gradient = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Quadratics:
    """Batch of n quadratics ½ xᵀ H x in d dimensions, with their minimum at zero.

    Args:
        curvature: Hessians, `[n, d, d]`.
        start: starting points, `[n, d]`.
        noise: standard deviation of the gradient noise per coordinate, `[n, d]`.
    """

    curvature: Tensor
    start: Tensor
    noise: Tensor

    def gradient(self, x: Tensor) -> Tensor:
        """Return the exact gradient at points `[..., n, d]`."""
        product: Tensor = torch.einsum("nij,...nj->...ni", self.curvature, x)
        return product

    def noisy_gradient(self, seed: int) -> Gradient:
        """Return a function that computes noisy gradients at points `[..., n, d]`.

        Each call draws new noise, `[n, d]`, which is broadcast over the leading dimensions.
        """
        generator = stream(seed, "noise of a claim")
        return lambda x: (
            self.gradient(x) + self.noise * torch.randn(self.noise.shape, generator=generator, dtype=torch.float64)
        )

    def loss(self, x: Tensor) -> Tensor:
        """Return the exact loss at points `[..., n, d]`."""
        return 0.5 * (x * self.gradient(x)).sum(-1)

    def largest_curvature(self) -> Tensor:
        """Return the largest curvature of each problem, `[n]`."""
        largest: Tensor = torch.linalg.eigvalsh(self.curvature)[:, -1]
        return largest


def quadratics(n: int, d: int, condition: float, seed: int, noise: float = 0.0) -> Quadratics:
    """Return randomly rotated quadratics with log-uniform curvatures from 1 to the condition number.

    Args:
        n: number of problems.
        d: dimension.
        condition: ratio of the largest to the smallest curvature; both occur in every problem.
        seed: seed of the rotations and starting points.
        noise: standard deviation of the gradient noise per coordinate.
    """
    generator = stream(seed, "quadratics")
    exponent = torch.rand(n, d, generator=generator, dtype=torch.float64)
    exponent[:, 0], exponent[:, -1] = 0, 1
    rotation = torch.linalg.qr(torch.randn(n, d, d, generator=generator, dtype=torch.float64))[0]
    curvature = rotation @ torch.diag_embed(condition**exponent) @ rotation.mT
    start = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return Quadratics(curvature, start, torch.full((n, d), noise, dtype=torch.float64))


def iterates(rule: Rule, gradient: Gradient, x: Tensor, steps: int, **values: Any) -> Iterator[Tensor]:
    """Yield the points of a descent: the starting point, and the point after each step.

    Args:
        rule: the rule.
        gradient: function from points to gradients of the same shape.
        x: starting points.
        steps: number of steps.
        **values: hyperparameters: numbers, or tensors that can be broadcast to the shape of the points.
    """
    numbers = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
    hyperparameters = {**rule.values(**numbers), **values}
    state: dict[str, Any] = {}
    yield x
    for t in range(1, steps + 1):
        x = step(rule, hyperparameters, t, x, gradient(x), state)["x"]
        yield x


def trajectory(rule: Rule, gradient: Gradient, x: Tensor, steps: int, **values: Any) -> Tensor:
    """Return all points of a descent, `[steps + 1, ...]`.

    For the arguments see `iterates`.
    """
    return torch.stack(list(iterates(rule, gradient, x, steps, **values)))


def final_point(rule: Rule, gradient: Gradient, x: Tensor, steps: int, **values: Any) -> Tensor:
    """Return the last point of a descent.

    For the arguments see `iterates`.
    """
    return deque(iterates(rule, gradient, x, steps, **values), maxlen=1)[0]


def final_loss(problems: Quadratics, points: Iterator[Tensor], steps: int) -> Tensor:
    """Return the mean loss over the last tenth of the steps, `[..., n]`; infinite for a descent that diverged.

    Args:
        problems: the quadratics.
        points: points of a descent, as yielded by `iterates`.
        steps: number of steps.
    """
    first = steps + 1 - max(1, steps // 10)
    losses = torch.stack([problems.loss(x) for x in islice(points, first, None)])
    return losses.mean(0).nan_to_num(float("inf"), float("inf"))


def stationary_loss(
    problems: Quadratics, x: Tensor, steps: int, burn_in: int, seed: int, **values: float | Tensor
) -> Tensor:
    """Return the loss of noisy gradient descent, summed over the steps after the burn-in, `[..., n]`.

    Args:
        problems: the quadratics.
        x: starting points, `[..., n, d]`.
        steps: number of steps.
        burn_in: number of initial steps that are left out.
        seed: seed of the gradient noise.
        **values: hyperparameters.
    """
    total = torch.zeros(x.shape[:-1], dtype=torch.float64)
    for t, point in enumerate(iterates(sgd, problems.noisy_gradient(seed), x, steps, **values)):
        total += problems.loss(point) * (t > burn_in)
    return total


def updates(rule: Rule, gradients: Tensor, **values: Any) -> Tensor:
    """Return the updates of a rule, `[steps, ...]`, for given gradients of the same shape.

    The point is reset to zero before each step, so that the updates have no cancellation errors.
    """
    hyperparameters, state, zero = rule.values(**values), dict[str, Any](), torch.zeros_like(gradients[0])
    return torch.stack([step(rule, hyperparameters, t, zero, g, state)["x"] for t, g in enumerate(gradients, 1)])


def learning_rate_grid(rule: Rule) -> Tensor:
    """Return the learning rates over which a rule is tuned, six per decade.

    They extend `BEYOND` decades beyond the rule's search range on either side.
    """
    axis = rule.axes["lr"]
    rates = grid_between(axis.from_unit(0.0) / 10**BEYOND, axis.from_unit(1.0) * 10**BEYOND)
    return torch.tensor(rates, dtype=torch.float64)


def tuned(rule: Rule, problems: Quadratics, steps: int, seed: int | None = None, **values: Any) -> Tensor:
    """Return the learning rate with the lowest final loss on each problem, `[n, 1]`.

    Args:
        rule: the rule.
        problems: the quadratics.
        steps: number of steps.
        seed: seed of the gradient noise; None for exact gradients. It must differ from the seed used for evaluation.
        **values: other hyperparameters.
    """
    grid = learning_rate_grid(rule)
    gradient = problems.gradient if seed is None else problems.noisy_gradient(seed)
    x = problems.start.expand(len(grid), *problems.start.shape)
    losses = final_loss(problems, iterates(rule, gradient, x, steps, **values, lr=grid[:, None, None]), steps)
    return grid[losses.argmin(0)][:, None]


def exponents(x: Sequence[float], y: Tensor) -> list[float]:
    """Fit a power law y = c xᵖ to each column by least squares in the logarithms, and return the exponents p.

    Args:
        x: values of x.
        y: values of y, `[len(x), n]`.
    """
    slopes: list[float] = np.polyfit(np.log(x), y.log().numpy(), 1)[0].tolist()
    return slopes
