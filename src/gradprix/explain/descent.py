"""Parallel descents of several optimizers on one landscape, and tuning of their learning rates."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gradprix.rules import Rule
from gradprix.tuning.learning_rate_grid import grid_between

from .gradient_noise import draw_noise
from .landscape import Landscape
from .resolve import resolve_optimizer
from .tracing import DIVERGED, step

Values = Mapping[str, Any]
BEYOND = 2
"""Decades by which the learning-rate search extends beyond a rule's range on either side, because landscapes differ in
scale."""


def descend(
    racers: Sequence[tuple[Rule, Values]], landscape: Landscape, steps: int, starts: Any = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Run several rules in parallel, each from one or more starting points, all with the same gradient noise.

    Args:
        racers: pairs of a rule (elementwise or tensorwise) and all of its hyperparameters. A hyperparameter is a
            number, or a tensor `[starts, 1]` with one value per starting point.
        landscape: the landscape.
        steps: number of steps.
        starts: starting points of every rule, `[2]` or `[starts, 2]`; the landscape's default if None.
        seed: seed of the gradient noise.

    Returns:
        The points, `[steps + 1, rules, starts, 2]`, and the loss at them without noise, `[steps + 1, rules, starts]`. A
        descent that diverges stays at its last valid point.
    """
    initial = torch.as_tensor(landscape.start if starts is None else starts, dtype=torch.float64).reshape(-1, 2)
    x = initial.repeat(len(racers), 1, 1)
    states: list[list[dict[str, Any]]] = [[{} for _ in _blocks(rule, initial)] for rule, _ in racers]
    points, losses = [x], []
    for t in range(1, steps + 1):
        values, gradients = landscape.gradient(x, draw_noise(seed, t))
        losses.append(values)
        proposals = torch.stack(
            [
                torch.cat([
                    step(rule, _select_rows(hyper, rows), t, x[i, rows], gradients[i, rows], states[i][k])["x"]
                    for k, rows in enumerate(_blocks(rule, initial))
                ])
                for i, (rule, hyper) in enumerate(racers)
            ]
        )  # fmt: skip
        diverged = ~(proposals.abs() < DIVERGED).all(-1, keepdim=True)
        x = torch.where(diverged, x, proposals)
        points.append(x)
    losses.append(landscape.gradient(x)[0])
    return torch.stack(points), torch.stack(losses)


def _blocks(rule: Rule, starts: Tensor) -> list[slice]:
    """Split the starting points into slices that are updated in one step of the rule.

    A separable rule updates all starting points together. Any other rule would mix their statistics, so it updates one
    starting point at a time.
    """
    count = len(starts)
    return [slice(0, count)] if rule.is_separable else [slice(i, i + 1) for i in range(count)]


def _select_rows(values: Values, rows: slice) -> Values:
    return {name: value[rows] if isinstance(value, Tensor) else value for name, value in values.items()}


def learning_rate_grid(rule: Rule) -> list[float]:
    """Return the learning rates that are tried on landscapes: those of a race, and `BEYOND` decades on either side."""
    low, high = rule.axes["lr"].from_unit(0.0), rule.axes["lr"].from_unit(1.0)
    return grid_between(low / 10**BEYOND, high * 10**BEYOND)


@lru_cache(maxsize=1024)
def tuned(
    rule: Rule | str,
    landscape: Landscape,
    steps: int,
    start: tuple[float, float] | None = None,
    seeds: int = 1,
    given: tuple[tuple[str, float | bool], ...] = (),
) -> float:
    """Select the learning rate with the lowest final loss.

    If several learning rates reach the same final loss, the one with the lowest mean loss over the descent is selected.

    Args:
        rule: the rule, or the name of an optimizer.
        landscape: the landscape.
        steps: number of steps.
        start: starting point; the landscape's default if None.
        seeds: number of noise seeds to average over.
        given: pairs of name and value of other hyperparameters.

    Returns:
        The learning rate, from a logarithmic grid with six points per decade, as in a race.
    """
    resolved = resolve_optimizer(rule)
    rule, given = resolved.rule, (*resolved.fixed.items(), *given)
    rates = torch.tensor(learning_rate_grid(rule), dtype=torch.float64)
    values = {**rule.values(**dict(given)), "lr": rates[:, None]}
    starts = torch.tensor(landscape.start if start is None else start, dtype=torch.float64).repeat(len(rates), 1)
    curves = [descend([(rule, values)], landscape, steps, starts, seed)[1][:, 0] for seed in range(seeds)]
    curve = torch.stack(curves).mean(0).nan_to_num(float("inf"), float("inf"))
    # Final losses that differ by less than a millionth of the total decrease count as equal.
    end = curve[-1].clamp(min=curve.min() + 1e-6 * float(curve[0, 0] - curve.min()))
    mean_excess = (curve - end[None]).clamp(min=0).mean(0)
    return float(rates[min(range(len(rates)), key=lambda i: (float(end[i]), float(mean_excess[i])))])
