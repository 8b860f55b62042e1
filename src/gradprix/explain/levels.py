"""Levels of a run: positive quantities such as its effective learning rate or its curvature, on a logarithmic scale.

A level is one number for each run, the mean of a logarithm over a part of the run. It varies little between seeds, even
where single steps are mostly noise, and ratios between entries are differences of levels.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from gradprix.race.diagnosis_record import MeasurementKind

from .network_measures import Point
from .replay import ReplayedRun

HIGH_RATE = 0.5
"""Factor of the schedule above which the learning rate counts as high."""
WARM_UP = 0.05
"""Share of the run at its beginning that is left out, because momentum and denominators build up."""
EARLY, LATE = (0.05, 0.25), (0.75, 0.95)
"""Parts of a run that are compared to detect a change over training, as shares of its steps."""
COMPARED = (
    MeasurementKind.TRAINING_LOSS,
    MeasurementKind.EFFECTIVE_RATE,
    MeasurementKind.GAIN,
    MeasurementKind.RELATIVE_UPDATE,
    MeasurementKind.RATE_KEPT,
    MeasurementKind.CURVATURE,
    MeasurementKind.STABILITY,
    MeasurementKind.PRECONDITIONING,
)
"""Kinds of measurements that are levels, in the order of the tables."""


def measure_levels(run: ReplayedRun, edge: float | None) -> dict[MeasurementKind, float]:
    """Return the natural logarithm of each level of a run; NaN where it is undefined.

    They are, while the learning rate is high (the schedule's factor is at least `HIGH_RATE`):

    * `EFFECTIVE_RATE`: norm of the update over norm of the gradient;
    * `GAIN`: long-run learning rate, the median over weights of the step length per unit of a constant gradient;
    * `RELATIVE_UPDATE`: norm of the update over norm of the weights;
    * `CURVATURE`: largest eigenvalue of the Hessian;
    * `STABILITY`: largest eigenvalue after preconditioning, as a fraction of the rule's stability limit `edge`;
    * `PRECONDITIONING`: largest eigenvalue after preconditioning, over the product of gain and curvature. It is 1 if
      all weights have the same learning rate, and small if weights with much curvature have smaller ones.

    And over other parts:

    * `TRAINING_LOSS`: mean training loss of the last epoch;
    * `RATE_KEPT`: gain late in training over that early in training, without the schedule's share.

    Args:
        run: a run that did not diverge.
        edge: largest product of gain and curvature at which the rule converges on a parabola; None if undefined.
    """
    points = select_high_rate(run)
    gain, curvature, seen = (_mean_log(points, value) for value in (_gain, lambda p: p.sharpness, lambda p: p.seen))
    early, late = (_mean_log(select_part(run, part), lambda p: p.gain / p.factor) for part in (EARLY, LATE))
    return {
        MeasurementKind.TRAINING_LOSS: _log(run.outcome.curve[-1][1]) if run.outcome else math.nan,
        MeasurementKind.EFFECTIVE_RATE: _mean_log_ratio(run, run.gradients),
        MeasurementKind.GAIN: gain,
        MeasurementKind.RELATIVE_UPDATE: _mean_log_ratio(run, run.weights),
        MeasurementKind.RATE_KEPT: late - early,
        MeasurementKind.CURVATURE: curvature,
        MeasurementKind.STABILITY: seen - (_log(edge) if edge else math.nan),
        MeasurementKind.PRECONDITIONING: seen - gain - curvature,
    }


def select_high_rate(run: ReplayedRun) -> list[Point]:
    """Return the measurements of a run while its learning rate is high."""
    return [p for p in run.points if p.share >= WARM_UP and p.factor >= HIGH_RATE]


def select_part(run: ReplayedRun, part: tuple[float, float]) -> list[Point]:
    """Return the measurements of a run in a part of it, given as shares of its steps."""
    return [p for p in run.points if part[0] <= p.share < part[1]]


def _gain(point: Point) -> float:
    return point.gain


def _mean_log(points: Sequence[Point], value: Callable[[Point], float]) -> float:
    """Return the mean logarithm of a value over the points at which it is measured; NaN if there are none."""
    logs = [_log(number) for number in map(value, points) if not math.isnan(number)]
    return float(np.mean(logs)) if logs else math.nan


def _mean_log_ratio(run: ReplayedRun, norms: Sequence[float]) -> float:
    """Return the mean logarithm of update norms over other norms, while the learning rate is high."""
    last = run.steps[-1] if run.steps else 1
    ratios = [
        _log(u / norm) if norm > 0 else math.nan
        for step, factor, u, norm in zip(run.steps, run.factors, run.updates, norms, strict=True)
        if step >= WARM_UP * last and factor >= HIGH_RATE
    ]
    return float(np.mean(ratios)) if ratios else math.nan


def _log(number: float) -> float:
    return math.log(number) if number > 0 and math.isfinite(number) else math.nan
