"""Step response of a rule: measured under constant, noisy, large and vanishing gradients."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradprix.rules import Rule

from .tracing import DIVERGED, step

STEPS = 1_000
"""Number of steps of each experiment."""
LARGER = 100.0
"""Size of the large gradient."""
COORDINATES = 256
"""Number of weights, each of which receives independent noise."""
FAINT = 0.02
"""Threshold below which exponents and relative differences are negligible."""


@dataclass(frozen=True)
class StepResponse:
    """Measured response of a rule to simple gradients.

    Args:
        rates: effective learning rate, |update| / |gradient|, at each step under a constant gradient of 1, divided by
            the learning rate η, `[steps]`. It ends before the first rate above `DIVERGED`; `exponent`, `scale` and
            `noise` are NaN then.
        exponent: exponent p of a power law tᵖ fitted to `rates` over the last nine tenths of the steps.
        first: length of the first step under a gradient of 1, divided by η.
        scale: ratio of the last steps under a constant gradient of 100 and of 1.
        noise: root mean square of the updates under pure noise, divided by the update under a constant gradient of the
            same root mean square.
        coasts: distance moved after a constant gradient has vanished, in units of the last step before.
        decay: remaining fraction of a weight after all steps without any gradient, weight decay included.
        memory: number of stored values per weight.
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
        """Sentences that describe the response."""
        sentences = []
        if len(self.rates) < STEPS:
            sentences.append(
                "Time: under a constant gradient the effective learning rate grows without limit: "
                f"{float(self.rates[0]):.3g} η at first, {float(self.rates[-1]):.3g} η at step {len(self.rates)}."
            )
        elif float(self.rates[-1]) > 0:
            sentences += [_format_scale(self.scale), _format_time(self.exponent, self.rates), _format_start(self.rates)]
            share = f"{100 * self.noise:.3g} %"
            sentences.append(
                f"Noise: the RMS update under pure gradient noise is {share} of that under a constant gradient."
            )
        else:
            sentences.append("Steps under a constant gradient vanish.")
        if self.coasts > FAINT:
            most = "at least " * (self.coasts > 0.9 * STEPS / 2)
            sentences.append(
                f"Momentum: after the gradient vanishes, the weights move {most}{self.coasts:.3g} times the last step."
            )
        if 1 - self.decay > 1e-9:
            left = f"{100 * self.decay:.3g} % remains after {STEPS:,} steps"
            sentences.append(f"Decay: weights shrink without a gradient: {left}.")
        sentences.append(f"Memory: {self.memory} stored number{'s' * (self.memory != 1)} per weight.")
        return [sentence for sentence in sentences if sentence]


def measure_step_response(rule: Rule, values: Mapping[str, Any] | None = None, **more: Any) -> StepResponse:
    """Measure the response of a rule to constant, noisy, large and vanishing gradients.

    The weights are reset to 1 before each step, and weight decay is off, except in the experiment for `decay`.

    Args:
        rule: the rule.
        values: hyperparameters that differ from the rule's defaults.
        **more: further hyperparameters.

    Raises:
        ValueError: if the rule updates matrices, for which the response of a single weight is undefined, or if the
            learning rate is 0.
    """
    if rule.is_matrix_rule:
        raise ValueError(f"{rule.name} updates whole matrices: the response of a single weight is undefined.")
    full = rule.values(**{**(values or {}), **more})
    lr = float(full["lr"])
    if lr == 0:
        raise ValueError("lr = 0: the weights do not move. Give another learning rate.")
    plain = {**full, "weight_decay": 0.0}
    ones = torch.ones(STEPS, COORDINATES, dtype=torch.float64)
    draws = torch.randn(STEPS, COORDINATES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    half = torch.arange(STEPS)[:, None] < STEPS // 2
    rates = _updates(rule, plain, ones)[:, 0].abs()
    is_valid = (rates / lr < DIVERGED).cumprod(0).bool()
    rates = rates.where(is_valid, torch.nan)
    larger, noisy, gone = (_updates(rule, plain, g) for g in (LARGER * ones, draws, half * ones))
    t, y = (_late(x).log() for x in (torch.arange(1, STEPS + 1, dtype=torch.float64), rates.clamp(min=1e-300)))
    slope = ((t - t.mean()) * (y - y.mean())).sum() / ((t - t.mean()) ** 2).sum()
    return StepResponse(
        rates[is_valid] / lr,
        float(slope),
        float(rates[0]) / lr,
        float(larger[-1, 0].abs() / rates[-1]),
        float((noisy.square().mean(1) / draws.square().mean(1))[STEPS // 2 :].mean().sqrt() / rates[-1]),
        float((gone[STEPS // 2 :, 0].sum() / gone[STEPS // 2 - 1, 0]).nan_to_num(0.0)),
        float(1 + _updates(rule, full, 0 * ones, held=False)[:, 0].sum()),
        rule.memory(full),
    )


def _updates(rule: Rule, values: Mapping[str, Any], gradients: Tensor, held: bool = True) -> Tensor:
    """Return the update of each step, `[steps, weights]`, for weights that start at 1.

    Args:
        rule: the rule.
        values: all of its hyperparameters.
        gradients: gradient of each step, `[steps, weights]`.
        held: reset the weights to 1 before each step.
    """
    x, state, updates = torch.ones_like(gradients[0]), dict[str, Any](), []
    for t, g in enumerate(gradients, start=1):
        moved = step(rule, values, t, x, g, state)["x"]
        updates.append(moved - x)
        x = x if held else moved
    return torch.stack(updates)


def _late(x: Tensor) -> Tensor:
    """Return all but the first tenth of the steps."""
    return x[STEPS // 10 :]


def _format_scale(scale: float) -> str:
    power = math.log(scale) / math.log(LARGER) if scale > 0 else 0.0
    if abs(power) < FAINT:
        return "Scale: a gradient a hundred times as large gives the same step; only η sets its size."
    return f"Scale: a gradient a hundred times as large gives a step {scale:.3g} times as large."


def _format_time(exponent: float, rates: Tensor) -> str:
    first, tenth, last = (float(rates[i]) for i in (0, STEPS // 10, -1))
    text = "Time: under a constant gradient the effective learning rate"
    if abs(last / tenth - 1) < FAINT:
        return f"{text} converges to {last:.3g} η."
    power_law = last * (_late(torch.arange(1, STEPS + 1, dtype=torch.float64)) / STEPS) ** exponent
    if float((_late(rates) / power_law - 1).abs().max()) < FAINT:
        return f"{text} follows t^{exponent:.2f}: {first:.3g} η at first, {last:.3g} η after {STEPS:,} steps."
    return f"{text} is {first:.3g} η at first, {tenth:.3g} η at step {STEPS // 10:,}, {last:.3g} η at step {STEPS:,}."


def _format_start(rates: Tensor) -> str:
    share = float(rates[0] / rates[-1])
    return "" if 0.5 < share < 2 else f"Start: the first step is {share:.2g} times as large as the last."
