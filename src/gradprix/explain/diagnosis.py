"""Why an entry placed where it did: sentences, each from a measured number with its uncertainty, or silence.

A sentence is said only when its whole interval is past a border that is fixed here; otherwise it is not clear.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit

from .network_measures import Point
from .replay import Seen

Kind = Literal["steps", "edge", "noise", "rate", "hard", "rare", "diverged"]
MIDDLE = (0.25, 0.75)
"""The part of a run that is spoken of: after warm-up and before the schedule has made steps tiny."""
EARLY, LATE = (0.05, 0.25), (0.75, 0.95)
"""The parts that are compared where something is said to change."""
TOO_FAR, SHORT = 1.0, 0.1
"""Along a step, 1 is where the loss is back at its height, 0.5 the bottom; at 0.1 four fifths of the way are left."""
FAR = 4.0
"""By what factor batch and noise scale must differ: within it both noise and signal count."""
STALLED = 1 / 2
"""What is left of the effective rate, beyond the schedule, when it is said to have worn out. AdaGrad on a constant
gradient keeps 0.42 from the early to the late part of a run."""
LESS, MORE = 0.8, 1.25
"""A group is served less, or more, than the plain gradient would."""
FEWEST = 3
"""Runs below which nothing is said: looks of one run are not independent."""

Points = Sequence[Sequence[Point]]
"""What was found in each run."""


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


def reasons(runs: Sequence[Seen], batch_size: int, edge: float | None) -> list[Reason]:
    """What was measured of an entry's runs; of those that came to their end.

    Args:
        runs: those that were watched, under different seeds.
        batch_size: examples a step; 0 for all.
        edge: the largest gain times curvature at which the rule settles on a parabola; None where there is no such.
    """
    lasted = [run for run in runs if run.lasted and run.points]
    points = [_part(run, MIDDLE) for run in lasted]
    found = [steps(points)]
    if edge is not None:
        found.append(sharp(points, edge))
    if batch_size:
        found.append(noise(points, batch_size))
    found.append(worn(lasted))
    found += [serves(points, kind, group) for kind, group in GROUPS.items()]
    return [reason for reason in found if reason.n]


GROUPS: dict[Kind, str] = {"hard": "the hardest tenth", "rare": "rare classes"}


def steps(points: Points) -> Reason:
    """How far steps go along the parabola below them: −½ Σ uᵀHu / Σ gᵀu."""
    number, low, high = _ratio(_sums(points, lambda p: -0.5 * p.bend), _sums(points, lambda p: p.slope))
    words = ""
    if not _goes_down(points):
        pass  # neither far nor short, where it is not clear that they go down at all
    elif low > TOO_FAR:
        words = "Its steps go too far: along them the loss would be above where it began."
    elif low > 0 and high < SHORT:
        words = "Its steps are short: along them most of the way to the bottom is left."
    return Reason("steps", number, low, high, _count(points), words)


def sharp(points: Points, edge: float) -> Reason:
    """The largest curvature that the rule sees, with its gain in it, as a share of where the rule ceases to settle."""
    kept = [[p for p in run if math.isfinite(p.seen)] for run in points]
    each = [[p.seen / edge for p in run] for run in kept if run]
    number, low, high = _jackknife(lambda runs: float(np.mean([np.mean(each[i]) for i in runs])), len(each))
    words = "Its rate is above what the sharpest direction allows: there it cannot settle." if low > 1 else ""
    return Reason("edge", number, low, high, _count(kept), words)


def noise(points: Points, batch_size: int) -> Reason:
    """The gradient noise scale over the batch size, Σ tr Σ / Σ |G|² / b, by way of its inverse: |G|² may be none."""
    kept = [[p for p in run if math.isfinite(p.spread)] for run in points]
    signal, low, high = _ratio(_sums(kept, lambda p: p.signal), _sums(kept, lambda p: p.spread / batch_size))
    words = ""
    if high < 1 / FAR:
        words = "Its batches are far below the noise scale: larger ones would need fewer steps, not fewer examples."
    elif low > FAR:
        words = "Its batches are far above the noise scale: smaller ones would need fewer examples."
    return Reason("noise", _inverse(signal), _inverse(high), _inverse(low), _count(kept), words)


def worn(runs: Sequence[Seen]) -> Reason:
    """What is left late of the early effective rate, with the schedule taken out: −Σ gᵀu / f over Σ |G|².

    By what a step makes of the gradient of all examples: the length of an update also has what noise adds to it.
    """
    parts = [[_part(run, where) for run in runs] for where in (EARLY, LATE)]
    if not all(all(part) for part in parts):
        return Reason("rate", *UNKNOWN, 0)
    sums = [(_sums(part, lambda p: -p.slope / max(p.factor, TINY)), _sums(part, lambda p: p.length)) for part in parts]

    def left(chosen: Sequence[int]) -> float:
        early, late = ((above[chosen].sum() / below[chosen].sum()) for above, below in sums)
        return float(late / early)

    count = sum(map(_count, parts))
    if not all(_surely_positive(each) for pair in sums for each in pair):
        return Reason("rate", *UNKNOWN, count)  # of gradients that noise hides
    number, low, high = _jackknife(left, len(runs))
    words = "Its effective rate wore out beyond what the schedule asks: late steps are small for their gradients."
    return Reason("rate", number, low, high, count, words if high < STALLED else "")


def serves(points: Points, kind: Kind, group: str) -> Reason:
    """How much a group's loss is lowered for each bit of the whole's, in units of what the plain gradient does."""
    kept = [[p for p in run if group in p.groups] for run in points]
    by_step, by_gradient = _sums(kept, lambda p: p.groups[group][0]), _sums(kept, lambda p: p.groups[group][1])
    slope, length = _sums(kept, lambda p: p.slope), _sums(kept, lambda p: p.length)

    def served(chosen: Sequence[int]) -> float:
        return float(by_step[chosen].sum() / slope[chosen].sum() / (by_gradient[chosen].sum() / length[chosen].sum()))

    number, low, high = _jackknife(served, len(slope))
    words = ""
    if not _goes_down(kept) or not _surely_positive(by_gradient) or not _surely_positive(length):
        number, low, high = UNKNOWN  # of what the plain gradient itself does not lower there is no share
    elif high < LESS:
        words = f"It leaves {group} behind: it lowers their loss less than the plain gradient would."
    elif low > MORE:
        words = f"It serves {group} more than the plain gradient would."
    return Reason(kind, number, low, high, _count(kept), words)


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


def averaged(runs: Sequence[Seen]) -> Mapping[str, list[Any]]:
    """The moves of an entry, medians over those of its runs that came to their end: for a figure."""
    lasted = [run for run in runs if run.lasted]
    made: dict[str, list[Any]] = {
        "step": list(lasted[0].steps) if lasted else [],
        "rate": [],
        "ratio": [],
        "cosine": [],
    }
    for i in range(len(made["step"])):
        u, g, x, way = (
            np.array([getattr(run, name)[i] for run in lasted]) for name in ("updates", "gradients", "weights", "along")
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            for name, values in (("rate", u / g), ("ratio", u / x), ("cosine", way / (u * g))):
                value = float(np.median(values))
                made[name].append(float(f"{value:.4g}") if math.isfinite(value) else None)
    return made


Interval = tuple[float, float, float]
UNKNOWN: Interval = (math.nan, -math.inf, math.inf)
TINY = 1e-12


def _inverse(signal: float) -> float:
    return 1 / signal if signal > 0 else math.inf


def _part(run: Seen, where: tuple[float, float]) -> list[Point]:
    return [p for p in run.points if where[0] <= p.share < where[1]]


def _count(points: Points) -> int:
    return sum(map(len, points))


def _sums(points: Points, of: Callable[[Point], float]) -> np.ndarray[Any, Any]:
    """The sum over the looks of each run that has any."""
    return np.array([sum(map(of, run)) for run in points if run])


def _goes_down(points: Points) -> bool:
    """Whether it is clear that steps lower the loss to first order."""
    return _surely_positive(-_sums(points, lambda p: p.slope))


def _surely_positive(values: np.ndarray[Any, Any]) -> bool:
    """Whether it is so in every run: sums over looks may differ by orders from run to run, so that means say little."""
    return len(values) >= FEWEST and bool((values > 0).all())


def _ratio(above: np.ndarray[Any, Any], below: np.ndarray[Any, Any]) -> Interval:
    """A ratio of sums over runs."""
    return _jackknife(lambda chosen: float(above[chosen].sum() / below[chosen].sum()), len(above))


def _jackknife(statistic: Callable[[Sequence[int]], float], runs: int) -> Interval:
    """A statistic of some runs with its 95 % interval, leaving out one run at a time (Tukey 1958), by Student's t."""
    if runs < FEWEST:
        return UNKNOWN
    every = list(range(runs))
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.array([statistic([i for i in every if i != out]) for out in every])
        whole, spread = statistic(every), float(((each - each.mean()) ** 2).sum())
    half = float(stdtrit(runs - 1, 0.975)) * math.sqrt((runs - 1) / runs * spread)
    return (whole, whole - half, whole + half) if math.isfinite(half) else UNKNOWN
