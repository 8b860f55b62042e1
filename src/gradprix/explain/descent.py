"""Many optimizers on one landscape at once, and the learning rate that suits each."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from gradprix.rules import Rule
from gradprix.tasks.rng import stream
from gradprix.tuning.learning_rate import rate

from .landscapes import Landscape
from .resolve import subject
from .tracing import DIVERGED, step

Values = Mapping[str, Any]
BEYOND = 2
"""Decades on either side of a rule's own range in which a rate is looked for: landscapes have scales of their own."""


def descend(
    racers: Sequence[tuple[Rule, Values]], landscape: Landscape, steps: int, starts: Any = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Descend with several rules side by side, each from one start or from many. All see the same noise.

    Args:
        racers: rules of elements or whole tensors with all of their hyperparameters; each a number or `[rows, 1]`.
        landscape: where.
        steps: how many.
        starts: `[2]`, or `[rows, 2]` for every rule; the landscape's own when None.
        seed: of the noise in gradients.

    Returns:
        Points, `[steps + 1, rules, rows, 2]`, and the values there without noise, `[steps + 1, rules, rows]`. A descent
        that has left everything behind stays where it was last seen.
    """
    begin = torch.as_tensor(landscape.start if starts is None else starts, dtype=torch.float64).reshape(-1, 2)
    x = begin.repeat(len(racers), 1, 1)
    generator = stream(seed, "noise")
    states: list[list[dict[str, Any]]] = [[{} for _ in _blocks(rule, begin)] for rule, _ in racers]
    points, losses = [x], []
    for t in range(1, steps + 1):
        values, gradients = landscape.gradient(x, generator)
        losses.append(values)
        moved = torch.stack(
            [
                torch.cat([
                    step(rule, _of_block(hyper, rows), t, x[i, rows], gradients[i, rows], states[i][k])["x"]
                    for k, rows in enumerate(_blocks(rule, begin))
                ])
                for i, (rule, hyper) in enumerate(racers)
            ]
        )  # fmt: skip
        lost = ~(moved.abs() < DIVERGED).all(-1, keepdim=True)
        x = torch.where(lost, x, moved)
        points.append(x)
    losses.append(landscape.gradient(x)[0])
    return torch.stack(points), torch.stack(losses)


def _blocks(rule: Rule, starts: Tensor) -> list[slice]:
    """Rows that are stepped together: all of them, or one by one where a step is of the whole tensor."""
    count = len(starts)
    return [slice(0, count)] if rule.scope == "element" else [slice(i, i + 1) for i in range(count)]


def _of_block(values: Values, rows: slice) -> Values:
    return {name: value[rows] if isinstance(value, Tensor) else value for name, value in values.items()}


@lru_cache(maxsize=1024)
def tuned(
    rule: Rule | str,
    landscape: Landscape,
    steps: int,
    start: tuple[float, float] | None = None,
    seeds: int = 1,
    given: tuple[tuple[str, float | bool], ...] = (),
) -> float:
    """The learning rate of the ladder that ends lowest after so many steps, or gets there first.

    Args:
        rule: the rule, or the name of an optimizer.
        landscape: where.
        steps: how many.
        start: where from; the landscape's own start when None.
        seeds: how many draws of noise the end is averaged over.
        given: other hyperparameters.

    Returns:
        One of six rates a decade, as in a race.
    """
    its = subject(rule)
    rule, given = its.rule, (*its.fixed.items(), *given)
    low, high = rule.axes["lr"].at(0.0), rule.axes["lr"].at(1.0)
    rungs = [rung for rung in range(-60, 30) if low / 10**BEYOND <= rate(rung) <= high * 10**BEYOND]
    rates = torch.tensor([rate(rung) for rung in rungs], dtype=torch.float64)
    values = {**rule.values(**dict(given)), "lr": rates[:, None]}
    starts = torch.tensor(landscape.start if start is None else start, dtype=torch.float64).repeat(len(rungs), 1)
    curves = [descend([(rule, values)], landscape, steps, starts, seed)[1][:, 0] for seed in range(seeds)]
    curve = torch.stack(curves).mean(0).nan_to_num(float("inf"), float("inf"))
    # Below a millionth of the way down no one sees a difference: among those, the sooner the better.
    end = curve[-1].clamp(min=curve.min() + 1e-6 * float(curve[0, 0] - curve.min()))
    soonest = (curve - end[None]).clamp(min=0).mean(0)
    return rate(rungs[min(range(len(rungs)), key=lambda i: (float(end[i]), float(soonest[i])))])
