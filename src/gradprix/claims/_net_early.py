"""Duration of the effect of Adam's bias correction on a network."""

from collections.abc import Mapping

import numpy as np

from gradprix.tasks import digits

from ._claim import Claim, Finding, Measured, Verdict, mean
from ._network_experiment import STEADY, Training, seeds, times, trial, tuned

ALPHA = 0.05
N = 32
EFFECT = 1.1
"""A training loss a tenth larger, or as much smaller, matters."""
MARGIN = 100 * digits.metric.margin  # in percentage points
LOOKS = (10, 30, 100, 300, 1_000)
"""Steps after which training losses are compared; Adam's second moment averages over 1 / (1 − β₂) = 1,000 steps."""
EARLY = 10
"""Approximate step at which the ratio of step lengths without and with correction peaks: six, by (1 − β₁ᵗ) / √(1 −
β₂ᵗ)."""
PASSES = 60
"""Epochs of 34 steps each: twice the averaging time."""
LATE, EVERY = 340, 34
"""Final steps over which the test accuracy is averaged, and the interval between evaluations: it fluctuates at a
constant learning rate."""
TASK = STEADY.change(epochs=PASSES)


def _measure_correction(quick: bool) -> tuple[dict[int, list[float]], list[float], list[float]]:
    """Return the effect of leaving out the correction for each seed; there is no warm-up, which would hide the start.

    Returns:
        The log ratio of training losses, uncorrected over corrected, at one learning rate, at each of `LOOKS`; and the
        difference in final test accuracy, corrected less uncorrected, with each tuned and at one learning rate.
    """
    rate, own = (tuned(TASK, ("adam",), quick, uncorrected=without)["adam"] for without in (False, True))
    run_seeds = seeds(quick, N)
    arms = [
        trial(TASK, "adam", lr, seed, uncorrected=without)
        for lr, without in ((rate, False), (rate, True), (own, True))
        for seed in run_seeds
    ]
    training = Training(TASK, arms)
    ratios, late = {}, []
    for t, _ in training.steps():
        if t in LOOKS:
            corrected, without, _ = training.losses(training.trainer.train).mean(1).chunk(3)
            ratios[t] = (without / corrected).log().tolist()
        if t > training.total - LATE and t % EVERY == 0:
            late.append(training.metrics(training.trainer.test))
    corrected_accuracy, at_one, at_own = np.mean(late, axis=0).reshape(3, -1)
    return ratios, (100 * (corrected_accuracy - at_own)).tolist(), (100 * (corrected_accuracy - at_one)).tolist()


def only_early(ratios: Mapping[int, Measured], late: Measured, at_one: Measured) -> Finding:
    """Return the verdict from an early difference and a final one.

    Args:
        ratios: ratio of losses at one learning rate, by step.
        late: final difference in accuracy, in percentage points, each tuned.
        at_one: final difference at one learning rate; for the record.
    """
    first = ratios[EARLY]
    starts = not first.ci95[0] <= 1 <= first.ci95[1] and not 1 / EFFECT < first.effect < EFFECT
    no_start = first.ci95[0] > 1 / EFFECT and first.ci95[1] < EFFECT
    ends = max(map(abs, late.ci95)) < MARGIN
    no_end = late.ci95[0] * late.ci95[1] > 0 and abs(late.effect) >= MARGIN
    verdict: Verdict = "holds" if starts and ends else "does not hold" if no_start or no_end else "not settled"
    text = ", ".join(f"{ratio.text()} after {t}" for t, ratio in ratios.items())
    says = (
        f"On digits at one rate, the training loss without the correction is so many times that with it: {text} steps. "
        f"In the end the test accuracy with it is {late.text('+.2f')} points higher than without where each has its "
        f"own tuned rate, {at_one.text('+.2f')} where the rate is the same."
    )
    return Finding(verdict, says, [first, late, at_one, *(ratio for t, ratio in ratios.items() if t != EARLY)])


def _only_early(quick: bool) -> Finding:
    ratios, late, at_one = _measure_correction(quick)
    what = f"points of test accuracy over the last {LATE} steps of {PASSES} passes, with the correction - without"
    return only_early(
        {
            t: times(f"training loss after {t} steps, without the correction over with it", each)
            for t, each in ratios.items()
        },
        mean(f"{what}, each at its own tuned rate", late),
        mean(f"{what}, at one rate", at_one),
    )


CLAIMS = (
    Claim(
        id="bias-correction-matters-only-early-on-a-network",
        account="Adam corrects its averages for their start at zero, which matters at the beginning only.",
        prediction=f"On digits, at Adam's tuned rate and without a warm-up, the training loss after {EARLY} steps "
        f"differs by a tenth or more without the correction. Near the end of {PASSES} passes the test accuracies with "
        "and without it are alike, each at its own tuned rate.",
        decides=f"Paired over {N} seeds. Holds if the 95 % interval of the ratio of losses after {EARLY} steps is off "
        f"one and it is {EFFECT} or more, either way, and that of the final difference in accuracy within {MARGIN:g} "
        "points; does not hold if the first is within that, or the last is off zero and beyond the margin.",
        run=_only_early,
        on="networks",
        source="Kingma & Ba 2015, arXiv:1412.6980, section 3",
    ),
)
