"""Diagnosis of an entry's results: findings, each backed by a measured quantity and its uncertainty.

There is a finding only if the whole confidence interval lies beyond a fixed threshold; otherwise the measurement is
inconclusive.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from scipy.special import stdtrit

from gradprix.race.diagnosis_record import Finding, Measurement, MeasurementKind, Ratio, UpdateStatistics

from .levels import COMPARED, measure_levels, select_high_rate
from .network_measures import Point
from .replay import ReplayedRun

TOO_FAR, SHORT = 1.0, 0.1
"""Thresholds for the step length on the parabola along the update. A step of length 0.5 reaches the minimum, a step of
length 1 returns to the initial loss, and a step of length 0.1 covers a fifth of the way to the minimum."""
UNDONE = 0.75
"""Step length above which noise is reported: so much of the first-order decrease is undone by the curvature."""
NEAR_LIMIT = 0.5
"""Share of the stability limit above which a learning rate is reported as close to it: doubling it is unstable."""
FAR = 4.0
"""Factor by which batch size and gradient noise scale must differ for a finding; below it, noise and signal both
matter."""
STALLED = 1 / 2
"""Threshold for the ratio of the late to the early learning rate, without the schedule's share; below it, the rate is
reported as worn out. For AdaGrad on a constant gradient the ratio is 0.42."""
LESS, MORE = 0.8, 1.25
"""Thresholds on the decrease of a group's loss, relative to plain gradient descent."""
UNDERFIT = 2.0
"""Factor between the training losses of an entry and of the leaders above which the entry underfits."""
FEWEST = 3
"""Minimum number of runs for a conclusion: measurements within one run are not independent."""

Points = Sequence[Sequence[Point]]
"""Measurements, grouped by run."""


@dataclass(frozen=True)
class Reason:
    """A measured property of an entry, with the conclusion if it is significant.

    Args:
        kind: the measured property.
        number: the estimate.
        low: lower end of its 95 % confidence interval.
        high: upper end.
        n: number of measurements; for divergence, the number of runs.
        finding: the conclusion; None if the measurement is inconclusive.
    """

    kind: MeasurementKind
    number: float
    low: float
    high: float
    n: int
    finding: Finding | None = None

    def to_record(self) -> Measurement:
        """Convert to a `Measurement` for the record, with None in place of numbers that are not finite."""
        number, low, high = (x if math.isfinite(x) else None for x in (self.number, self.low, self.high))
        return Measurement(kind=self.kind, number=number, low=low, high=high, n=self.n, finding=self.finding)


def diagnose(runs: Sequence[ReplayedRun], batch_size: int, edge: float | None) -> list[Reason]:
    """Measure the properties of an entry, using its runs that did not diverge.

    All but the training loss and the share of the learning rate that is kept are measured while the learning rate is
    high.

    Args:
        runs: replayed runs of the entry with different seeds.
        batch_size: examples per step; 0 for full batches.
        edge: largest product of gain and curvature at which the rule converges on a parabola; None omits stability.

    Returns:
        The properties for which there is at least one measurement.
    """
    finished = [run for run in runs if run.lasted]
    points = [selected for run in finished if (selected := select_high_rate(run))]
    levels = [measure_levels(run, edge) for run in finished]
    measured = {kind: measure_level(kind, [each[kind] for each in levels]) for kind in COMPARED}
    measured[MeasurementKind.STEP_LENGTH] = measure_step_length(points)
    if batch_size:
        measured[MeasurementKind.NOISE_SCALE] = measure_noise_scale(points, batch_size)
        steps, stability = measured[MeasurementKind.STEP_LENGTH], measured[MeasurementKind.STABILITY]
        if _decreases_loss(points) and steps.low > UNDONE and stability.high < 1:  # curvature alone would not do it
            measured[MeasurementKind.STEP_LENGTH] = replace(steps, finding=Finding.NOISE_LIMITED)
    for kind in (MeasurementKind.HARDEST_TENTH, MeasurementKind.RARE_CLASSES):
        measured[kind] = measure_group_progress(points, kind)
    return [reason for reason in measured.values() if reason.n]


def measure_level(kind: MeasurementKind, logs: Sequence[float]) -> Reason:
    """Measure the geometric mean of a level over runs, with its 95 % confidence interval.

    The interval is Student's t of the logarithms.

    Args:
        kind: kind of the measurement.
        logs: natural logarithm of each run's level; NaN where it is undefined.
    """
    finite = np.array([log for log in logs if math.isfinite(log)])
    if not len(finite):
        return Reason(kind, *UNKNOWN, 0)
    number, low, high = float(np.exp(finite.mean())), 0.0, math.inf
    if len(finite) >= FEWEST:
        half = float(stdtrit(len(finite) - 1, 0.975) * finite.std(ddof=1) / math.sqrt(len(finite)))
        low, high = number * math.exp(-half), number * math.exp(half)
    finding = None
    if kind is MeasurementKind.STABILITY and low > NEAR_LIMIT:
        finding = Finding.UNSTABLE if low > 1 else Finding.NEAR_STABILITY_LIMIT
    if kind is MeasurementKind.RATE_KEPT and high < STALLED:
        finding = Finding.RATE_WORN_OUT
    return Reason(kind, number, low, high, len(finite), finding)


def compare_measurement(measurement: Measurement, ratio: Ratio | None) -> Measurement:
    """Return a measurement with its ratio to the leaders, and the finding that follows from it."""
    finding = measurement.finding
    if measurement.kind is MeasurementKind.TRAINING_LOSS and ratio is not None and ratio.low > UNDERFIT:
        finding = Finding.UNDERFITS
    return msgspec.structs.replace(measurement, comparison=ratio, finding=finding)


def measure_step_length(points: Points) -> Reason:
    """Measure the step length on the parabola along the update, −½ Σ uᵀHu / Σ gᵀu.

    It is 0.5 if the step reaches the parabola's minimum, and 1 if it returns to the initial loss on the other side.
    """
    number, low, high = _ratio(_sums(points, lambda p: -0.5 * p.bend), _sums(points, lambda p: p.slope))
    finding = None
    if not _decreases_loss(points):
        pass  # the length of a step is meaningless unless steps lower the loss
    elif low > TOO_FAR:
        finding = Finding.STEPS_TOO_LONG
    elif low > 0 and high < SHORT:
        finding = Finding.STEPS_SHORT
    return Reason(MeasurementKind.STEP_LENGTH, number, low, high, _count(points), finding)


def measure_noise_scale(points: Points, batch_size: int) -> Reason:
    """Measure the ratio of the gradient noise scale to the batch size, Σ tr Σ / Σ |G|² / b.

    The inverse ratio and its interval are estimated first and then inverted, because the estimate of |G|² may be zero.
    """
    usable = [[p for p in run if math.isfinite(p.spread)] for run in points]
    signal, low, high = _ratio(_sums(usable, lambda p: p.signal), _sums(usable, lambda p: p.spread / batch_size))
    finding = None
    if high < 1 / FAR:
        finding = Finding.BATCH_BELOW_NOISE_SCALE
    elif low > FAR:
        finding = Finding.BATCH_ABOVE_NOISE_SCALE
    interval = _inverse(signal), _inverse(high), _inverse(low)
    return Reason(MeasurementKind.NOISE_SCALE, *interval, _count(usable), finding)


def measure_group_progress(points: Points, kind: MeasurementKind) -> Reason:
    """Measure the decrease of a group's loss per decrease of the total loss, relative to plain gradient descent.

    Args:
        points: measurements of each run.
        kind: kind of the measurement, which names the group of examples.
    """
    usable = [[p for p in run if kind in p.groups] for run in points]
    by_step, by_gradient = _sums(usable, lambda p: p.groups[kind][0]), _sums(usable, lambda p: p.groups[kind][1])
    slope, length = _sums(usable, lambda p: p.slope), _sums(usable, lambda p: p.length)

    def relative_decrease(chosen: Sequence[int]) -> float:
        return float(by_step[chosen].sum() / slope[chosen].sum() / (by_gradient[chosen].sum() / length[chosen].sum()))

    number, low, high = _jackknife(relative_decrease, len(slope))
    finding = None
    if not _decreases_loss(usable) or not _all_positive(by_gradient) or not _all_positive(length):
        number, low, high = UNKNOWN  # the ratio is undefined where the plain gradient does not lower the loss
    elif high < LESS:
        finding = Finding.GROUP_NEGLECTED
    elif low > MORE:
        finding = Finding.GROUP_FAVOURED
    return Reason(kind, number, low, high, _count(usable), finding)


def report_divergence(lost: Sequence[int | None]) -> Reason | None:
    """Return the share of final runs that diverged, or None if no run diverged.

    Args:
        lost: step at which each final run diverged; None for a run that did not.
    """
    share = sum(step is not None for step in lost) / len(lost)
    if not share:
        return None
    return Reason(MeasurementKind.DIVERGED, share, share, share, len(lost), Finding.DIVERGED)


def average_updates(runs: Sequence[ReplayedRun]) -> UpdateStatistics:
    """Return the update statistics of an entry, as medians over its runs that did not diverge."""
    lasted = [run for run in runs if run.lasted]
    steps = lasted[0].steps if lasted else []
    medians: dict[str, list[float | None]] = {"rate": [], "ratio": [], "cosine": []}
    for i in range(len(steps)):
        u, g, x, descent = (
            np.array([getattr(run, name)[i] for run in lasted]) for name in ("updates", "gradients", "weights", "along")
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            for name, values in (("rate", u / g), ("ratio", u / x), ("cosine", descent / (u * g))):
                value = float(np.median(values))
                medians[name].append(float(f"{value:.4g}") if math.isfinite(value) else None)
    return UpdateStatistics(step=tuple(steps), **{name: tuple(values) for name, values in medians.items()})


Interval = tuple[float, float, float]
UNKNOWN: Interval = (math.nan, -math.inf, math.inf)


def _inverse(signal: float) -> float:
    return 1 / signal if signal > 0 else math.inf


def _count(points: Points) -> int:
    return sum(map(len, points))


def _sums(points: Points, value: Callable[[Point], float]) -> np.ndarray[Any, Any]:
    """Return one sum per run, of a value over the measurements of the run. Runs without measurements are left out."""
    return np.array([sum(map(value, run)) for run in points if run])


def _decreases_loss(points: Points) -> bool:
    """Return True if the steps of every run lower the loss to first order."""
    return _all_positive(-_sums(points, lambda p: p.slope))


def _all_positive(values: np.ndarray[Any, Any]) -> bool:
    """Return True if there are at least `FEWEST` runs and the values of all runs are positive.

    This is tested instead of an interval of the mean, because values may differ by orders of magnitude between runs.
    """
    return len(values) >= FEWEST and bool((values > 0).all())


def _ratio(numerator: np.ndarray[Any, Any], denominator: np.ndarray[Any, Any]) -> Interval:
    """Return the ratio of two sums over runs, with its 95 % confidence interval."""
    return _jackknife(lambda chosen: float(numerator[chosen].sum() / denominator[chosen].sum()), len(numerator))


def _jackknife(statistic: Callable[[Sequence[int]], float], runs: int) -> Interval:
    """Return a statistic of runs with its 95 % confidence interval by the jackknife (Tukey 1958) and Student's t.

    Args:
        statistic: function from the indices of runs to the statistic of these runs.
        runs: number of runs.

    Returns:
        The estimate and both ends of its interval; `UNKNOWN` if there are fewer than `FEWEST` runs, or if the interval
        is not finite.
    """
    if runs < FEWEST:
        return UNKNOWN
    every = list(range(runs))
    with np.errstate(divide="ignore", invalid="ignore"):
        leave_one_out = np.array([statistic([i for i in every if i != omitted]) for omitted in every])
        whole, sum_of_squares = statistic(every), float(((leave_one_out - leave_one_out.mean()) ** 2).sum())
    half = float(stdtrit(runs - 1, 0.975)) * math.sqrt((runs - 1) / runs * sum_of_squares)
    return (whole, whole - half, whole + half) if math.isfinite(half) else UNKNOWN
