"""Comparison of training runs with repetitions of them: to the bit, or within the noise of a seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

from gradprix.training.trial import Outcome, Trial

from .seed_noise import difference_deviation, largest_mean, t_quantile
from .value_comparison import Difference, compare_values

FALSE_ALARM = 0.02
"""Probability with which noise makes any single run differ, and that with which it makes the mean of any entry differ.
The tests of either kind share it, so that it holds for a bundle, whatever its number of entries and runs."""
SAME_WEIGHTS = 1e-6
"""Relative tolerance of metrics of a run whose losses are those of its repetition to the bit. Its weights are the same,
so that rounding cannot change the metrics by more."""
TUNING_OUTLIERS = 0.05
"""Share of the tuning runs that may differ by more: at the edge of stability, rounding decides between success and
failure. A run that is stated to be better than the final runs, which no rounding explains, is not among them: one such
run can tune an optimizer to a learning rate at which it fails."""


def run_numbers(outcome: Outcome) -> dict[str, Any]:
    """Return all numbers of an outcome that do not depend on time; for a run that failed, only the kind of failure.

    Pictures and texts that the task made from the trained model are not among them.
    """
    if outcome.failure is not None:
        return {"failure": outcome.failure}
    names = ("curve", "test_loss", "test_metric", "test_parts", "diverged", "start", "gradients")
    numbers = {name: getattr(outcome, name) for name in names}
    numbers["curve"] = [list(point) for point in outcome.curve]
    return numbers | {"after": None if outcome.after is None else outcome.after.get("numbers"), "failure": None}


def compare_runs(stated: Outcome, again: Outcome, tolerance: float = 0.0) -> list[Difference]:
    """Return the numbers of a run that its repetition does not have.

    Args:
        stated: outcome in the bundle.
        again: outcome of the repetition.
        tolerance: relative tolerance; 0 requires equality to the bit.
    """
    return compare_values(run_numbers(stated), run_numbers(again), tolerance)


RunLength = tuple[str, float]
"""Name of an entry, and epochs of its runs."""


@dataclass(frozen=True)
class NoiseScale:
    """Scale of an entry's noise between seeds, from its final runs.

    Args:
        test: standard deviation of a difference of the test metric between two seeds.
        valid: that of the validation metric.
        margin: smallest difference that matters.
        freedom: degrees of freedom of the standard deviations; infinity if they are known.
    """

    test: float
    valid: float
    margin: float
    freedom: float = math.inf

    @classmethod
    def from_finals(cls, outcomes: Sequence[Outcome], margin: float) -> "NoiseScale":
        """Return the scale of the noise of final runs of an entry."""
        whole = [outcome for outcome in outcomes if outcome.diverged is None]
        test = [outcome.test_metric for outcome in whole if outcome.test_metric is not None]
        valid = [outcome.valid_metric for outcome in whole]
        test_noise, valid_noise = (
            difference_deviation(variance(values)) if len(values) > 1 else 0.0 for values in (test, valid)
        )
        return cls(test_noise, valid_noise, margin, max(1, len(whole) - 1))

    def deviation(self, is_final: bool) -> float:
        """Return the standard deviation of a difference between two seeds, at least a tenth of the margin."""
        return max(self.test if is_final else self.valid, self.margin / 10)

    def limit(self, is_final: bool, level: float) -> float:
        """Return the largest difference between a run and its repetition that is noise, at a level of its test."""
        return max(t_quantile(level, self.freedom) * self.deviation(is_final), self.margin)

    def largest_mean(self, differences: Sequence[float], level: float) -> float:
        """Return the largest mean difference between final runs and their repetitions that is noise."""
        return largest_mean(differences, self.deviation(True), self.margin, level, self.freedom)


def metric_of(outcome: Outcome) -> float:
    """Return the test metric of a final run, or the validation metric of a tuning run; NaN if it diverged."""
    if outcome.diverged is not None:
        return math.nan
    return outcome.valid_metric if outcome.test_metric is None else outcome.test_metric


@dataclass(frozen=True)
class NoiseComparison:
    """Comparison of runs with their repetitions, within the noise of a seed.

    Args:
        different: keys of the runs that differ by more, with the stated metric and that of the repetition.
        shifted: names of the entries whose final runs differ on average by more, with the mean difference.
        largest: largest difference of a final run, in standard deviations of a difference between two seeds.
    """

    different: dict[str, tuple[float, float]]
    shifted: dict[str, float]
    largest: float


def compare_within_noise(
    trials: Mapping[str, Trial],
    stated: Mapping[str, Outcome],
    again: Mapping[str, Outcome],
    scales: Mapping[RunLength, NoiseScale],
    higher_is_better: bool,
) -> NoiseComparison:
    """Compare runs with their repetitions on another machine.

    Metrics must agree where the losses are the same to the bit, and otherwise within the noise of a seed.

    Runs that diverged both times, or that are far worse both times than the final runs of their entry, agree: what
    rounding changes there does not affect a choice.

    Args:
        trials: trials of the repeated runs, by key.
        stated: outcomes of all runs of the bundle.
        again: outcomes of the repetitions.
        scales: noise of the final runs of each entry and length.
        higher_is_better: direction of the metric.
    """
    sign = 1 if higher_is_better else -1
    tuned = {length: fmean(values) for length, values in _valid_metrics(trials, stated).items()}
    different: dict[str, tuple[float, float]] = {}
    outliers: dict[str, tuple[float, float]] = {}
    shifts: dict[RunLength, list[float]] = {}
    largest = 0.0
    for key, trial in trials.items():
        one, other, is_final = metric_of(stated[key]), metric_of(again[key]), trial.evaluates_test
        length = trial.entry_name, trial.epochs
        scale = scales[length]
        difference, limit = other - one, scale.limit(is_final, FALSE_ALARM / len(trials))
        if math.isnan(one) and math.isnan(other):
            continue
        if _contradicts_losses(stated[key], again[key]):
            different[key] = one, other
            continue
        if not is_final and length in tuned and _is_bad(one, other, sign, tuned[length], 2 * limit):
            continue
        if not abs(difference) <= limit:
            is_outlier = not is_final and not sign * (one - tuned.get(length, one)) > limit
            (outliers if is_outlier else different)[key] = one, other
        elif is_final:
            shifts.setdefault(length, []).append(difference)
            largest = max(largest, abs(difference) / scale.deviation(True))
    tuning = sum(not trial.evaluates_test for trial in trials.values())
    if len(outliers) > max(1, TUNING_OUTLIERS * tuning):
        different |= outliers
    shifted = {
        length[0]: fmean(values)
        for length, values in shifts.items()
        if abs(fmean(values)) > scales[length].largest_mean(values, FALSE_ALARM / len(shifts))
    }
    return NoiseComparison(different, shifted, largest)


def _contradicts_losses(stated: Outcome, again: Outcome) -> bool:
    """Return True if a run has the losses of its repetition to the bit, but other metrics.

    Training loops are left out, because their scores may take few values. So are artifacts, which the task computes.
    """
    losses, others = ([loss for point in outcome.curve for loss in point[1:3]] for outcome in (stated, again))
    if again.gradients is None or losses != others:
        return False
    return any(not each.where.startswith("after") for each in compare_runs(stated, again, SAME_WEIGHTS))


def _valid_metrics(trials: Mapping[str, Trial], stated: Mapping[str, Outcome]) -> dict[RunLength, list[float]]:
    """Return the validation metrics of the final runs that did not diverge, by entry and length."""
    metrics: dict[RunLength, list[float]] = {}
    for key, trial in trials.items():
        if trial.evaluates_test and stated[key].diverged is None:
            metrics.setdefault((trial.entry_name, trial.epochs), []).append(stated[key].valid_metric)
    return metrics


def _is_bad(one: float, other: float, sign: int, tuned: float, distance: float) -> bool:
    """Return True if both metrics are worse than that of the tuned settings by a distance, or not finite."""
    return all(not sign * value > sign * tuned - distance for value in (one, other))
