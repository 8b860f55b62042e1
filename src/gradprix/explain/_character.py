"""What a rule does to gradients of known kinds: constant, noisy, a hundred times larger, gone. Measured, not told."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradprix.rules import Rule

from ._trace import step

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
        decay: what is left of a weight of 1 after all steps with no gradient at all.
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
        found = [_about_scale(self.scale), _about_time(self.exponent, self.rates), _about_first(self.first, self.rates)]
        found.append(f"Noise: of a gradient that is noise alone, {100 * self.noise:.3g} % gets through to the weights.")
        if self.coasts > FAINT:
            most = "at least " * (self.coasts > 0.9 * STEPS / 2)
            found.append(f"Momentum: once the gradient is gone it coasts {most}{self.coasts:.3g} steps' worth of way.")
        if 1 - self.decay > 1e-9:
            left = f"{100 * self.decay:.3g} % is left after {STEPS:,} steps"
            found.append(f"Decay: without any gradient weights shrink: {left}.")
        found.append(f"Memory: it remembers {self.memory} number{'s' * (self.memory != 1)} for each weight.")
        return [sentence for sentence in found if sentence]


def character(rule: Rule, **values: Any) -> Character:
    """Measure a rule.

    Args:
        rule: the rule.
        **values: hyperparameters other than its defaults.

    Raises:
        ValueError: for a rule of matrices, which no single weight shows.
    """
    if rule.of_matrices:
        raise ValueError(f"{rule.name} steps matrices as a whole: a single weight does not show what it does.")
    full = rule.values(**values)
    lr = float(full["lr"])
    ones = [1.0] * STEPS
    plain, large = _updates(rule, full, ones), _updates(rule, full, [LARGER] * STEPS)
    generator = torch.Generator().manual_seed(0)
    noisy = _updates(rule, full, list(torch.randn(STEPS, COORDINATES, generator=generator, dtype=torch.float64)))
    still = _updates(rule, full, [0.0] * STEPS, begin=1.0)
    gone = _updates(rule, full, [*ones[: STEPS // 2], *[0.0] * (STEPS // 2)])
    rates = plain.abs()[:, 0]
    t = torch.arange(1, STEPS + 1, dtype=torch.float64)[STEPS // 10 :].log()
    y = rates[STEPS // 10 :].clamp(min=1e-300).log()
    slope = ((t - t.mean()) * (y - y.mean())).sum() / ((t - t.mean()) ** 2).sum()
    last = float(rates[-1])
    return Character(
        rates / lr,
        float(slope),
        float(rates[0]) / lr,
        float(large[-1].abs()[0]) / last,
        float(noisy[STEPS // 2 :].square().mean().sqrt()) / last,
        float(gone[STEPS // 2 :].sum() / gone[STEPS // 2 - 1]),
        1.0 + float(still.sum()),
        rule.memory(full),
    )


def _updates(rule: Rule, values: Mapping[str, Any], gradients: Sequence[Any], begin: float = 0.0) -> Tensor:
    """What each step adds to weights that begin at the same value, under these gradients, `[steps, weights]`."""
    count = COORDINATES if isinstance(gradients[0], Tensor) else 1
    x, state, found = torch.full((count,), begin, dtype=torch.float64), dict[str, Any](), []
    for t, gradient in enumerate(gradients, start=1):
        g = torch.as_tensor(gradient, dtype=torch.float64).expand(count)
        moved = step(rule, values, t, x, g, state)["x"]
        found.append(moved - x)
        x = moved
    return torch.stack(found)


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
    t = torch.arange(1, STEPS + 1, dtype=torch.float64)[STEPS // 10 :]
    straight = last * (t / STEPS) ** exponent
    if float((rates[STEPS // 10 :] / straight - 1).abs().max()) < FAINT:
        return f"{said} goes as t^{exponent:.2f}: {first:.3g} η at first, {last:.3g} η after {STEPS:,} steps."
    return f"{said} goes from {first:.3g} η by {tenth:.3g} η at step {STEPS // 10:,} to {last:.3g} η at step {STEPS:,}."


def _about_first(first: float, rates: Tensor) -> str:
    share = first / float(rates[-1])
    return "" if 0.5 < share < 2 else f"Start: the first step is {share:.2g} times as large as a late one."
