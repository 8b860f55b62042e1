"""What a rule does to gradients of known kinds: constant, noisy, a hundred times larger, gone. Measured, not told."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradprix.rules import Rule

from .tracing import step

STEPS = 1_000
"""Of each experiment."""
LARGER = 100.0
COORDINATES = 256
"""Independent draws of noise."""
FAINT = 0.02
"""Exponents and shares smaller than this are as good as none."""


@dataclass(frozen=True)
class Character:
    """A rule under gradients of known kinds, at its own or given hyperparameters.

    Args:
        rates: the effective learning rate, |update| / |gradient|, at each step of a constant gradient of 1, as a share
            of η, `[steps]`.
        exponent: p, where that rate goes as t^p over the last nine tenths of the steps, on logarithmic scales.
        first: the first step under a gradient of 1, as a share of η.
        scale: how many times as large the step is under a gradient a hundred times as large, in the end.
        noise: the root mean square of updates under a gradient that is noise alone, as a share of the update under a
            constant gradient of the same size: how much of noise gets through.
        coasts: the way on after a constant gradient has gone, in last steps.
        decay: what is left of a weight of 1 after all steps with no gradient at all, weight decay and all.
        memory: numbers remembered for each weight.
    """

    rates: Tensor
    exponent: float
    first: float
    scale: float
    noise: float
    coasts: float
    decay: float
    memory: int

    @property
    def sentences(self) -> list[str]:
        """What to watch, each sentence from its number."""
        found = []
        if float(self.rates[-1]) > 0:
            found += [_about_scale(self.scale), _about_time(self.exponent, self.rates), _about_first(self.rates)]
            share = f"{100 * self.noise:.3g} %"
            found.append(
                f"Noise: of a gradient that is noise alone, {share} gets through to the weights, next to a steady one."
            )
        else:
            found.append("It makes no step under a constant gradient, in the end.")
        if self.coasts > FAINT:
            most = "at least " * (self.coasts > 0.9 * STEPS / 2)
            found.append(f"Momentum: once the gradient is gone it coasts {most}{self.coasts:.3g} steps' worth of way.")
        if 1 - self.decay > 1e-9:
            left = f"{100 * self.decay:.3g} % is left after {STEPS:,} steps"
            found.append(f"Decay: without any gradient weights shrink: {left}.")
        found.append(f"Memory: it remembers {self.memory} number{'s' * (self.memory != 1)} for each weight.")
        return [sentence for sentence in found if sentence]


def character(rule: Rule, values: Mapping[str, Any] | None = None, **more: Any) -> Character:
    """Measure a rule, on weights that are held at 1 and without weight decay, but for `decay`.

    Args:
        rule: the rule.
        values: hyperparameters other than its defaults.
        **more: likewise.

    Raises:
        ValueError: for a rule of matrices, which no single weight shows, and for a learning rate of 0.
    """
    if rule.of_matrices:
        raise ValueError(f"{rule.name} steps matrices as a whole: a single weight does not show what it does.")
    full = rule.values(**{**(values or {}), **more})
    lr = float(full["lr"])
    if lr == 0:
        raise ValueError("a learning rate of 0 moves nothing: give another.")
    plain = {**full, "weight_decay": 0.0}
    ones = torch.ones(STEPS, COORDINATES, dtype=torch.float64)
    draws = torch.randn(STEPS, COORDINATES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    half = torch.arange(STEPS)[:, None] < STEPS // 2
    rates = _updates(rule, plain, ones)[:, 0].abs()
    larger, noisy, gone = (_updates(rule, plain, g) for g in (LARGER * ones, draws, half * ones))
    t, y = (_late(x).log() for x in (torch.arange(1, STEPS + 1, dtype=torch.float64), rates.clamp(min=1e-300)))
    slope = ((t - t.mean()) * (y - y.mean())).sum() / ((t - t.mean()) ** 2).sum()
    return Character(
        rates / lr,
        float(slope),
        float(rates[0]) / lr,
        float(larger[-1, 0].abs() / rates[-1]),
        float((noisy.square().mean(1) / draws.square().mean(1))[STEPS // 2 :].mean().sqrt() / rates[-1]),
        float((gone[STEPS // 2 :, 0].sum() / gone[STEPS // 2 - 1, 0]).nan_to_num(0.0)),
        float(1 + _updates(rule, full, 0 * ones, held=False)[:, 0].sum()),
        rule.memory(full),
    )


def _updates(rule: Rule, values: Mapping[str, Any], gradients: Tensor, held: bool = True) -> Tensor:
    """What each step adds to weights that begin at 1, and are held there or go their way, `[steps, weights]`."""
    x, state, found = torch.ones_like(gradients[0]), dict[str, Any](), []
    for t, g in enumerate(gradients, start=1):
        moved = step(rule, values, t, x, g, state)["x"]
        found.append(moved - x)
        x = x if held else moved
    return torch.stack(found)


def _late(x: Tensor) -> Tensor:
    """All but the first tenth."""
    return x[STEPS // 10 :]


def _about_scale(scale: float) -> str:
    power = math.log(scale) / math.log(LARGER) if scale > 0 else 0.0
    if abs(power) < FAINT:
        return "Scale: a gradient a hundred times as large makes the same step; only η sets its size."
    return f"Scale: a gradient a hundred times as large makes a step {scale:.3g} times as large."


def _about_time(exponent: float, rates: Tensor) -> str:
    first, tenth, last = (float(rates[i]) for i in (0, STEPS // 10, -1))
    said = "Time: under a constant gradient the effective rate"
    if abs(last / tenth - 1) < FAINT:
        return f"{said} settles at {last:.3g} η."
    straight = last * (_late(torch.arange(1, STEPS + 1, dtype=torch.float64)) / STEPS) ** exponent
    if float((_late(rates) / straight - 1).abs().max()) < FAINT:
        return f"{said} goes as t^{exponent:.2f}: {first:.3g} η at first, {last:.3g} η after {STEPS:,} steps."
    return f"{said} goes from {first:.3g} η by {tenth:.3g} η at step {STEPS // 10:,} to {last:.3g} η at step {STEPS:,}."


def _about_first(rates: Tensor) -> str:
    share = float(rates[0] / rates[-1])
    return "" if 0.5 < share < 2 else f"Start: the first step is {share:.2g} times as large as a late one."
