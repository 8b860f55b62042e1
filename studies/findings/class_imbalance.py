"""Training under Zipf class frequencies: rare classes with gradient descent and with sign-like methods.

Source: Kunstner et al. 2024, arXiv:2402.19449. Models are linear softmax classifiers, trained with full batches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import isfinite, log

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gradprix.claims.decisions import Answer, Decision, all_of, any_of, is_above, is_below, is_within
from gradprix.claims.estimates import Measured, exact, mean
from gradprix.claims.quadratics import iterates
from gradprix.claims.registry import Quantities
from gradprix.rules import ALL
from gradprix.show.figure import Chart
from gradprix.tasks.rng import stream

from .answers import conjunction
from .figures import interval_rows
from .registry import experiment

N, QUICK = 3, 2
GROUPS = 6  # group k has 2^k classes; all groups have the same number of examples
PER_GROUP = 64
FEATURES = 448
CHECKS, QUICK_CHECKS = (12, 25, 50, 100), (12, 25)
"""Numbers of steps at which losses can be compared: at the first of them where Adam has learned."""
OPTIMIZERS: Mapping[str, tuple[str, Mapping[str, float], tuple[int, int]]] = {
    "descent": ("sgd", {}, (-7, 8)),
    "adam": ("adam", {}, (-13, -2)),
    "sign": ("signum", {"momentum": 0.0}, (-15, -4)),
}
"""Rule, fixed hyperparameters and binary exponents of the lowest and the highest learning rate."""
KINDS = {
    "zipf": "classes of Zipf frequencies",
    "balanced": "classes of equal frequencies",
    "centred": "classes of Zipf frequencies, inputs of mean zero",
}
SLOWER = 0.2  # a fifth of the initial loss more counts as slower
LEARNED = 0.1  # share of the initial loss up to which Adam has learned the examples that are compared
FITTED = 1e-3  # share of the initial loss below which no better learning rate is looked for
ALIKE = 0.05  # a twentieth of the initial loss counts as no difference

CLASSES = 100
FLOW_RATE = 8.0  # learning rate of gradient descent that approximates gradient flow
FLOW_TIMES, QUICK_FLOW_TIMES = (16_000, 32_000, 64_000), (8_000, 16_000, 32_000)
SIGN_RATE, SIGN_TIMES = 0.01, (300, 600)
EXPONENT = 0.1  # tolerated deviation of an exponent from its theoretical value
ROUNDING = 1e-6


@dataclass(frozen=True)
class Classification:
    """Linear classification problem with random inputs.

    Args:
        inputs: features, `[examples, FEATURES]`.
        targets: classes, `[examples]`.
        groups: group of classes of each example by frequency, from the most frequent, `[examples]`.
    """

    inputs: Tensor
    targets: Tensor
    groups: Tensor

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.targets.max()) + 1

    def gradient(self, weights: Tensor) -> Tensor:
        """Return the gradient of the mean cross-entropy at weights `[..., classes, FEATURES]`."""
        probabilities = (self.inputs @ weights.mT).softmax(-1)
        return (probabilities - functional.one_hot(self.targets)).mT @ self.inputs / len(self.targets)

    def losses(self, weights: Tensor) -> Tensor:
        """Return the cross-entropy of each example as a share of that at zero weights, `[..., examples]`."""
        log_likelihood = (self.inputs @ weights.mT).log_softmax(-1)
        return -log_likelihood[..., torch.arange(len(self.targets)), self.targets] / log(self.classes)


def draw_problem(seed: int, kind: str) -> Classification:
    """Draw a problem in which the classes of each group are half as frequent as those of the group before.

    Inputs are uniform between 0 and 1, and independent of the classes, as in the paper's linear experiment.

    Args:
        seed: seed of the inputs.
        kind: a key of `KINDS`.
    """
    groups = torch.arange(GROUPS).repeat_interleave(PER_GROUP)
    within = torch.arange(PER_GROUP).repeat(GROUPS)
    targets = 2**groups - 1 + within % 2**groups
    if kind == "balanced":
        targets = torch.arange(len(groups)) % int(targets.max() + 1)
    inputs = torch.rand(len(targets), FEATURES, generator=stream(seed, "imbalance"))
    return Classification(inputs - 0.5 if kind == "centred" else inputs, targets, groups)


def train_tuned(problem: Classification, optimizer: str, quick: bool) -> Tensor:
    """Train from zero, and return the losses of each example after each of `CHECKS`, `[checks, examples]`.

    The learning rate of each check is that with the lowest mean loss there. Full batches have no noise, so that it is
    tuned on the run that is measured, for every optimizer.
    """
    name, fixed, (low, high) = OPTIMIZERS[optimizer]
    rates = 2.0 ** torch.arange(low, high + 1, 2 if quick else 1)[:, None, None]
    start = torch.zeros(len(rates), problem.classes, FEATURES)
    checks, tuned = QUICK_CHECKS if quick else CHECKS, []
    for t, point in enumerate(iterates(ALL[name], problem.gradient, start, checks[-1], lr=rates, **fixed)):
        if t in checks:
            losses = problem.losses(point).nan_to_num(torch.inf, torch.inf)
            best = int(losses.mean(-1).argmin())
            is_inside = 0 < best < len(rates) - 1 or float(losses[best].mean()) < FITTED
            assert is_inside or quick, f"the best learning rate of {optimizer} is at the edge of the grid"
            tuned.append(losses[best])
    return torch.stack(tuned)


@cache
def train_all(quick: bool) -> dict[tuple[str, str], list[Tensor]]:
    """Return the mean loss of each group, `[checks, GROUPS]`, for each seed, by optimizer and kind of problem."""
    results: dict[tuple[str, str], list[Tensor]] = {}
    for seed, kind in product(range(QUICK if quick else N), KINDS):
        problem = draw_problem(seed, kind)
        for optimizer in OPTIMIZERS:
            losses = train_tuned(problem, optimizer, quick)
            by_group = torch.stack([losses[:, problem.groups == k].mean(1) for k in range(GROUPS)], 1)
            results.setdefault((optimizer, kind), []).append(by_group.double())
    return results


PARTS = {"rare": slice(-2, None), "frequent": slice(0, 2), "every": slice(None)}
"""Groups of classes over which losses are averaged: a third of the examples each, or all."""


def decide_training(m: Quantities) -> Decision:
    """Return the verdict: slow on rare classes under Zipf frequencies, but neither on frequent nor on balanced ones."""
    return any_of(
        {"the inputs have a common mean": is_explained(m, "zipf"), "they have none": is_explained(m, "centred")}
    )


def is_explained(m: Quantities, kind: str) -> Answer:
    """Return True if rare classes are slow with gradient descent only, False if not, None if inconclusive."""
    slow = [is_above(m[f"{other}_rare_{kind}"], SLOWER) for other in ("adam", "sign")]
    alike = [is_below(m[f"{other}_every_balanced"], ALIKE) for other in ("adam", "sign")]
    return conjunction(*slow, *alike)


def draw_training(m: Quantities) -> Chart:
    """Draw what gradient descent leaves more than Adam and sign descent."""
    rows = {
        f"{part} {other}": m[f"{name}_{key}"]
        for key, part in (("rare_zipf", "rare:"), ("frequent_zipf", "frequent:"), ("every_balanced", "balanced:"))
        for name, other in (("adam", "Adam"), ("sign", "sign"))
    }
    title = "excess loss of gradient descent, share of the initial loss"
    return interval_rows("gradient-descent-is-slow-on-rare-classes", title, rows, 0.0)


@experiment("gradient-descent-is-slow-on-rare-classes", decide_training, draw=draw_training)
def measure_training(quick: bool) -> Quantities:
    """Compare the losses that remain after equal numbers of steps, on frequent and on rare classes."""
    results = train_all(quick)

    def compared(name: str, kind: str, part: str) -> list[float]:
        """Return the loss of each seed on a part, at the first check at which Adam has learned it, or at the last."""
        adam = torch.stack(results["adam", kind])[..., PARTS[part]].mean((0, 2))
        check = int((adam <= LEARNED).int().argmax()) if bool((adam <= LEARNED).any()) else -1
        return [float(losses[check, PARTS[part]].mean()) for losses in results[name, kind]]

    def behind(other: str, kind: str, part: str) -> Measured:
        return mean(np.subtract(compared("descent", kind, part), compared(other, kind, part)))

    arms = (("rare", "zipf"), ("frequent", "zipf"), ("every", "balanced"), ("rare", "centred"))
    comparisons = {
        f"{other}_{part}_{kind}": behind(other, kind, part) for part, kind in arms for other in ("adam", "sign")
    }
    left = {f"left_{name}": mean(compared(name, "zipf", "rare")) for name in OPTIMIZERS}
    return {**comparisons, **left}


def train_on_indicators(rate: float, times: tuple[int, ...], signs: bool) -> Tensor:
    """Return the loss of each class during descent on one-hot inputs, `[times, CLASSES]`.

    All examples of class k have the k-th unit vector as input, so that row k of the weights holds the logits of class
    k. Class k has a frequency proportional to 1/k, and the weights start from zero.

    Args:
        rate: learning rate.
        times: numbers of steps after which the losses are returned.
        signs: update by the sign of the gradient.
    """
    frequency = class_frequencies()
    logits, target, losses = torch.zeros(CLASSES, CLASSES, dtype=torch.float64), torch.eye(CLASSES).double(), []
    for t in range(1, times[-1] + 1):
        gradient = frequency[:, None] * (logits.softmax(-1) - target)
        logits -= rate * (gradient.sign() if signs else gradient)
        if t in times:
            losses.append(-logits.log_softmax(-1).diagonal())
    return torch.stack(losses)


def class_frequencies() -> Tensor:
    """Return the frequencies of the classes, proportional to 1/k."""
    weight = 1 / torch.arange(1, CLASSES + 1, dtype=torch.float64)
    return weight / weight.sum()


def decide_flow(m: Quantities) -> Decision:
    """Return the verdict: exponents of −1 for gradient flow, an exponential decrease for sign descent."""
    if not all(isfinite(m[name].effect) for name in ("frequency", "time_low", "time_high", "sign_rate")):
        return "inconclusive"
    return all_of(
        is_within(m["frequency"], -1 - EXPONENT, -1 + EXPONENT),
        is_within(m["time_low"], -1 - EXPONENT, -1 + EXPONENT),
        is_within(m["time_high"], -1 - EXPONENT, -1 + EXPONENT),
        m["sign_frequency"].effect <= ROUNDING,
        is_within(m["sign_rate"], 2 - EXPONENT, 2 + EXPONENT),
    )


@experiment("gradient-flow-is-slow-on-rare-classes", decide_flow)
def measure_flow(quick: bool) -> Quantities:
    """Measure the exponents of the loss of a class over its frequency and over time, and those of sign descent."""
    times = QUICK_FLOW_TIMES if quick else FLOW_TIMES
    flow = train_on_indicators(FLOW_RATE, times, signs=False).log().numpy()
    sign = train_on_indicators(SIGN_RATE, SIGN_TIMES, signs=True).log().numpy()
    frequencies, log_times = class_frequencies().log().numpy(), np.log(times)
    over_frequency = np.polyfit(frequencies, flow[-1], 1)[0]
    over_time = np.polyfit(log_times, flow, 1)[0]
    early, late = SIGN_TIMES
    return {
        "frequency": exact(float(over_frequency), CLASSES),
        "time": exact(float(over_time.mean()), CLASSES),
        "time_low": exact(float(over_time.min()), CLASSES),
        "time_high": exact(float(over_time.max()), CLASSES),
        "sign_frequency": exact(float(np.ptp(sign, axis=1).max()), CLASSES),
        "sign_rate": exact(float((sign[0] - sign[1]).mean() / (late - early) / SIGN_RATE), CLASSES),
    }
