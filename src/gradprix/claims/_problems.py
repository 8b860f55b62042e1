"""Problems on which claims are tested, many at once: random quadratics, and descents on them by the library's rules."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from gradprix.explain.descent import BEYOND
from gradprix.explain.tracing import step
from gradprix.rules import Rule
from gradprix.tasks.rng import stream
from gradprix.tuning.learning_rate import rate

Gradient = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Quadratics:
    """½ xᵀ H x with the minimum at zero, n of them side by side.

    Args:
        curvature: H of each, `[n, d, d]`.
        start: where each descent begins, `[n, d]`.
        noise: the standard deviation of what is added to each coordinate of a gradient, `[n, d]`.
    """

    curvature: Tensor
    start: Tensor
    noise: Tensor

    def gradient(self, x: Tensor) -> Tensor:
        """Without noise, for points `[..., n, d]`."""
        product: Tensor = torch.einsum("nij,...nj->...ni", self.curvature, x)
        return product

    def noisy(self, seed: int) -> Gradient:
        """A gradient with noise, anew at each call, the same for all rows `[..., n, d]`."""
        generator = stream(seed, "noise of a claim")
        return lambda x: (
            self.gradient(x) + self.noise * torch.randn(self.noise.shape, generator=generator, dtype=torch.float64)
        )

    def loss(self, x: Tensor) -> Tensor:
        """Of points `[..., n, d]`, without noise."""
        return 0.5 * (x * self.gradient(x)).sum(-1)

    def steepest(self) -> Tensor:
        """The largest curvature of each, `[n]`."""
        largest: Tensor = torch.linalg.eigvalsh(self.curvature)[:, -1]
        return largest


def quadratics(n: int, d: int, condition: float, seed: int, noise: float = 0.0) -> Quadratics:
    """Random quadratics: curvatures from 1 to the condition number, even in the logarithm, turned at random.

    Args:
        n: how many.
        d: coordinates of each.
        condition: the ratio of the largest to the smallest curvature, both of which are there.
        seed: of the turns and the starts.
        noise: the standard deviation of each coordinate of a gradient.
    """
    generator = stream(seed, "quadratics")
    share = torch.rand(n, d, generator=generator, dtype=torch.float64)
    share[:, 0], share[:, -1] = 0, 1
    turn = torch.linalg.qr(torch.randn(n, d, d, generator=generator, dtype=torch.float64))[0]
    curvature = turn @ torch.diag_embed(condition**share) @ turn.mT
    start = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return Quadratics(curvature, start, torch.full((n, d), noise, dtype=torch.float64))


def walk(rule: Rule, gradient: Gradient, x: Tensor, steps: int, **values: Any) -> Iterator[Tensor]:
    """Descend by a rule.

    Args:
        rule: the rule, as it trains.
        gradient: of a point, in its shape.
        x: where from.
        steps: how many.
        **values: hyperparameters; each a number, or a tensor that spreads over points.

    Yields:
        The points: before each step, and after the last.
    """
    numbers = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
    whole = {**rule.values(**numbers), **values}
    state: dict[str, Any] = {}
    yield x
    for t in range(1, steps + 1):
        x = step(rule, whole, t, x, gradient(x), state)["x"]
        yield x


def end(points: Iterator[Tensor]) -> Tensor:
    """The last point."""
    return deque(points, maxlen=1)[0]


def settled(problems: Quadratics, points: Iterator[Tensor], steps: int) -> Tensor:
    """The mean loss over the last tenth of so many steps, infinite where it is no number, `[..., n]`."""
    first = steps + 1 - max(1, steps // 10)
    losses = torch.stack([problems.loss(x) for x in islice(points, first, None)])
    return losses.mean(0).nan_to_num(float("inf"), float("inf"))


def updates(rule: Rule, gradients: Tensor, **values: Any) -> Tensor:
    """What a rule does with given gradients.

    The point is put back to zero before each step: read is the update, not the difference of two large numbers.

    Args:
        rule: the rule.
        gradients: `[steps, ...]`.
        **values: hyperparameters.

    Returns:
        Each step, in the shape of the gradients.
    """
    whole, state, zero = rule.values(**values), dict[str, Any](), torch.zeros_like(gradients[0])
    return torch.stack([step(rule, whole, t, zero, g, state)["x"] for t, g in enumerate(gradients, 1)])


def ladder(rule: Rule, axis: Any = None) -> Tensor:
    """The rates among which a claim tunes: six a decade, some decades beyond the rule's own range."""
    low, high = (axis or rule.axes["lr"]).at(0.0) / 10**BEYOND, (axis or rule.axes["lr"]).at(1.0) * 10**BEYOND
    return torch.tensor([rate(rung) for rung in range(-60, 30) if low <= rate(rung) <= high], dtype=torch.float64)


def tuned(rule: Rule, problems: Quadratics, steps: int, seed: int | None = None, **values: Any) -> Tensor:
    """The rate that ends lowest on each problem, `[n, 1]`.

    Args:
        rule: the rule.
        problems: the problems.
        steps: how many.
        seed: of the noise; None for none. Another one than what is then judged.
        **values: other hyperparameters.
    """
    rates = ladder(rule)
    gradient = problems.gradient if seed is None else problems.noisy(seed)
    x = problems.start.expand(len(rates), *problems.start.shape)
    found = settled(problems, walk(rule, gradient, x, steps, **values, lr=rates[:, None, None]), steps)
    return rates[found.argmin(0)][:, None]
