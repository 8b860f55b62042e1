"""Duration of the effect of Adam's bias correction on a network."""

from typing import Any

import numpy as np

from .claim import Quantities, experiment
from .decisions import all_of, is_equivalent, negate
from .estimates import geometric_mean, mean
from .network_training import CONSTANT, DIGITS_MARGIN, Training, make_trial, seeds, tuned

N = 32
EFFECT = 1.1  # A training loss a tenth larger, or as much smaller, matters
STEPS = (10, 30, 100, 300, 1_000)
"""Steps after which training losses are compared; Adam's second moment averages over 1 / (1 − β₂) = 1,000 steps."""
EARLY = 10
"""Approximate step at which the ratio of step lengths without and with correction peaks: six, by (1 − β₁ᵗ) / √(1 −
β₂ᵗ)."""
PASSES = 60  # epochs of 34 steps each: twice the averaging time
LATE, EVERY = 340, 34
"""Final steps over which the test accuracy is averaged, and the interval between evaluations: it fluctuates at a
constant learning rate."""
TASK = CONSTANT.change(epochs=PASSES)


@experiment(
    "bias-correction-matters-only-early-on-a-network",
    decide=lambda m: all_of(
        negate(is_equivalent(m[f"step_{EARLY}"], 1 / EFFECT, EFFECT, null=1)),
        is_equivalent(m["own"], -DIGITS_MARGIN, DIGITS_MARGIN),
    ),
)
def measure(quick: bool) -> Quantities:
    """Train Adam with and without correction, without a warm-up, which would hide the start."""
    corrected_lr, own_lr = (tuned(TASK, ("adam",), quick, uncorrected=off)["adam"] for off in (False, True))
    arms = [
        make_trial(TASK, "adam", lr, seed, uncorrected=off)
        for lr, off in ((corrected_lr, False), (corrected_lr, True), (own_lr, True))
        for seed in seeds(quick, N)
    ]
    training = Training(TASK, arms)
    log_ratios: dict[int, Any] = {}
    accuracies = []
    for t, _ in training.steps():
        if t in STEPS:
            corrected, uncorrected, _ = training.losses(training.stack.data.train).mean(1).chunk(3)
            log_ratios[t] = (uncorrected / corrected).log()
        if t > training.total_steps - LATE and t % EVERY == 0:
            accuracies.append(training.metrics(training.stack.data.test))
    corrected_accuracy, same_lr, own = np.mean(accuracies, axis=0).reshape(3, -1)
    return {
        f"step_{EARLY}": geometric_mean(log_ratios[EARLY]),
        "own": mean(100 * (corrected_accuracy - own)),
        "same": mean(100 * (corrected_accuracy - same_lr)),
        **{f"step_{t}": geometric_mean(log_ratios[t]) for t in STEPS if t != EARLY},
    }
