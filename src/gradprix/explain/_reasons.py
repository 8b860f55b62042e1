"""Why an entry placed where it did: sentences, each from a measured number with its uncertainty, or silence.

A sentence is said only when its whole interval is past a border that is fixed here; otherwise it is not clear.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit

from ._measure import Point
from ._watch import Seen

Kind = Literal["steps", "edge", "noise", "rate", "hard", "rare", "diverged"]
MIDDLE = (0.25, 0.75)
"""The part of a run that is spoken of: after warm-up and before the schedule has made steps tiny."""
TOO_FAR, SHORT = 1.0, 0.1
"""Along a step, 1 is where the loss is back at its height, 0.5 the bottom; under 0.1 nine tenths of the way is left."""
FAR = 4.0
"""By what factor batch and noise scale must differ: within it both noise and signal count."""
STALLED = 1 / 2
"""What is left of the effective rate, beyond the schedule, when it is said to have worn out. AdaGrad on a constant
gradient keeps 0.34 from a tenth of a run to seven eighths of it."""
LESS, MORE = 0.8, 1.25
"""A group is served less, or more, than the plain gradient would."""
FEWEST = 6
"""Looks below which nothing is said: an interval from fewer is a guess."""


@dataclass(frozen=True)
class Reason:
    """Something measured of an entry, and what it means, if that is clear.

    Args:
        kind: what was measured.
        number: the estimate.
        low: end of its 95 % interval.
        high: the other.
        n: from how many looks, or runs.
        words: a sentence, or empty when it is not clear.
    """

    kind: Kind
    number: float
    low: float
    high: float
    n: int
    words: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without numbers that are none."""
        return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in vars(self).items()}


def reasons(runs: Sequence[Seen], batch_size: int, lr: float, edge: float | None) -> list[Reason]:
    """What was measured of an entry's runs.

    Args:
        runs: those that were watched, under different seeds.
        batch_size: examples a step; 0 for all.
        lr: the tuned learning rate.
        edge: the largest rate times curvature at which the rule settles on a parabola; None where there is no such.
    """
    points = [p for run in runs for p in run.points if MIDDLE[0] <= p.share < MIDDLE[1]]
    whole = [p for p in points if math.isfinite(p.sharpness)]
    found = [steps(points)]
    if edge is not None:
        found.append(sharp(whole, lr, edge, [_factor(runs, p.share) for p in whole]))
    if batch_size:
        found.append(noise(whole, batch_size))
    found.append(worn(runs))
    found += [serves(points, kind, group) for kind, group in GROUPS.items() if points and group in points[0].groups]
    return [reason for reason in found if reason.n]


GROUPS: dict[Kind, str] = {"hard": "the hardest tenth", "rare": "rare classes"}


def steps(points: Sequence[Point]) -> Reason:
    """How far steps go along the parabola below them: −½ Σ uᵀHu / Σ gᵀu."""
    number, low, high = _ratio([-0.5 * p.bend for p in points], [p.slope for p in points])
    words = ""
    if low > TOO_FAR:
        words = "Its steps go too far: along them the loss would be above where it began."
    elif high < SHORT and low > -SHORT:
        words = "Its steps are short: along them most of the way to the bottom is left."
    return Reason("steps", number, low, high, len(points), words)


def sharp(points: Sequence[Point], lr: float, edge: float, factors: Sequence[float]) -> Reason:
    """The learning rate times the largest curvature, as a share of where the rule ceases to settle."""
    values = [lr * factor * p.sharpness / edge for p, factor in zip(points, factors, strict=True)]
    number, low, high = _mean(values)
    words = ""
    if low > 1:
        words = "Its rate is above what the sharpest direction allows: there it cannot settle."
    elif high < 0.5:
        words = "Its rate is well below what the sharpest direction allows: curvature does not limit it."
    return Reason("edge", number, low, high, len(points), words)


def noise(points: Sequence[Point], batch_size: int) -> Reason:
    """The gradient noise scale over the batch size, Σ tr Σ / Σ |G|² / b, by way of its inverse: |G|² may be none."""
    kept = [p for p in points if math.isfinite(p.spread)]
    signal, low, high = _ratio([p.signal for p in kept], [p.spread / batch_size for p in kept])
    words = ""
    if high < 1 / FAR:
        words = "Its batches are far below the noise scale: what it averages over steps counts; larger ones would help."
    elif low > FAR:
        words = "Its batches are far above the noise scale: smaller ones would give as good a step for fewer examples."
    return Reason("noise", _inverse(signal), _inverse(high), _inverse(low), len(kept), words)


def _inverse(signal: float) -> float:
    return 1 / signal if signal > 0 else math.inf


def worn(runs: Sequence[Seen]) -> Reason:
    """What is left late of the early effective rate, with the schedule taken out."""
    values = []
    for run in runs:
        last = max(run.steps, default=0)
        parts = [
            [
                u / g / f
                for t, f, u, g in zip(run.steps, run.factors, run.updates, run.gradients, strict=True)
                if low * last <= t <= high * last and f > 0 and g > 0
            ]
            for low, high in ((0.05, 0.15), (0.8, 0.95))
        ]
        if all(parts):
            values.append(float(np.median(parts[1]) / np.median(parts[0])))
    number, low, high = _mean(np.log(values).tolist()) if values else (math.nan,) * 3
    number, low, high = math.exp(number), math.exp(low), math.exp(high)
    words = "Its effective rate wore out beyond what the schedule asks: late steps are small for their gradients."
    return Reason("rate", number, low, high, len(values), words if high < STALLED else "")


def serves(points: Sequence[Point], kind: Kind, group: str) -> Reason:
    """How much a group's loss is lowered for each bit of the whole's, in units of what the plain gradient does."""
    own = [p.groups[group] for p in points]

    def served(weights: np.ndarray[Any, Any]) -> float:
        by_step = weights @ [a for a, _ in own] / (weights @ [p.slope for p in points])
        by_gradient = weights @ [b for _, b in own] / (weights @ [p.length for p in points])
        return float(by_step / by_gradient)

    number, low, high = _jackknife(served, len(points))
    words = ""
    if high < LESS:
        words = f"It leaves {group} behind: it lowers their loss less than the plain gradient would."
    elif low > MORE:
        words = f"It serves {group} more than the plain gradient would."
    return Reason(kind, number, low, high, len(points), words)


def diverged(lost: Sequence[int | None]) -> Reason | None:
    """How many final runs diverged, and when the first did.

    Args:
        lost: for each final run the step at which it diverged, or None.
    """
    steps_lost = [step for step in lost if step is not None]
    if not steps_lost:
        return None
    words = f"{len(steps_lost)} of {len(lost)} final runs diverged, the first at step {min(steps_lost):,}."
    share = len(steps_lost) / len(lost)
    return Reason("diverged", share, share, share, len(lost), words)


def _factor(runs: Sequence[Seen], share: float) -> float:
    """The factor on the learning rate at a share of a run."""
    steps, factors = runs[0].steps, runs[0].factors
    return float(np.interp(share * max(steps), steps, factors))


Interval = tuple[float, float, float]
UNKNOWN: Interval = (math.nan, -math.inf, math.inf)


def _mean(values: Sequence[float]) -> Interval:
    """A mean with Student's t interval."""
    if len(values) < 2:
        return UNKNOWN
    half = float(stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1)) / math.sqrt(len(values))
    middle = float(np.mean(values))
    return middle, middle - half, middle + half


def _ratio(above: Sequence[float], below: Sequence[float]) -> Interval:
    """A ratio of sums."""
    a, b = np.array(above), np.array(below)
    return _jackknife(lambda weights: float(weights @ a / (weights @ b)), len(a))


def _jackknife(statistic: Callable[[np.ndarray[Any, Any]], float], n: int) -> Interval:
    """A statistic of weighted looks with its interval, leaving out one look at a time (Tukey 1958)."""
    if n < FEWEST:
        return UNKNOWN
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.array([statistic(np.ones(n) - np.eye(n)[i]) for i in range(n)])
        whole = statistic(np.ones(n))
    half = float(stdtrit(n - 1, 0.975)) * math.sqrt((n - 1) / n * float(((each - each.mean()) ** 2).sum()))
    return (whole, whole - half, whole + half) if math.isfinite(half) else UNKNOWN


def averaged(runs: Sequence[Seen]) -> Mapping[str, list[Any]]:
    """The moves of an entry, medians over its runs: for a figure."""
    shortest = min((run.steps for run in runs), key=len)
    made = {"rate": [], "ratio": [], "cosine": []}  # type: dict[str, list[Any]]
    for i in range(len(shortest)):
        u, g, x, way = (
            np.array([getattr(run, name)[i] for run in runs]) for name in ("updates", "gradients", "weights", "along")
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            for name, values in (("rate", u / g), ("ratio", u / x), ("cosine", way / (u * g))):
                value = float(np.median(values))
                made[name].append(float(f"{value:.4g}") if math.isfinite(value) else None)
    return {"step": list(shortest), **made}
