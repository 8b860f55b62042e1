"""Effect of Adam's bias correction on a network, early and late in training."""

from typing import Any

import numpy as np

from .claim import experiment
from .decisions import all_of, is_equivalent, negate
from .estimates import geometric_mean, mean
from .network_training import CONSTANT, DIGITS_MARGIN, Training, make_trial, seeds, tuned
from .registry import Quantities

N = 32
EFFECT = 1.1  # a training loss that is larger or smaller by this factor matters
STEPS = (10, 30, 100, 300, 1_000)
"""Steps after which training losses are compared; Adam's second moment averages over 1 / (1 − β₂) = 1,000 steps."""
EARLY = 10
"""Step at which the early effect is tested. The ratio of step lengths without and with correction,
(1 − β₁ᵗ) / √(1 − β₂ᵗ), is largest at about step six."""
PASSES = 60  # number of epochs, of 34 steps each: about twice the averaging time of the second moment
LATE, EVERY = 340, 34
"""Number of final steps over which the test accuracy is averaged, and number of steps between evaluations. The accuracy
fluctuates at a constant learning rate."""
TASK = CONSTANT.change(epochs=PASSES)


@experiment(
    "bias-correction-matters-only-early-on-a-network",
    decide=lambda m: all_of(
        negate(is_equivalent(m[f"step_{EARLY}"], 1 / EFFECT, EFFECT, null=1)),
        is_equivalent(m["own"], -DIGITS_MARGIN, DIGITS_MARGIN),
    ),
)
def measure(quick: bool) -> Quantities:
    """Train Adam with and without bias correction, and compare training losses and test accuracy.

    There is no learning-rate warm-up, which would hide the effect on the first steps.
    """
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
