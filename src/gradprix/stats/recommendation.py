"""Recommendation among the leaders of a race, and the quantities that it rests on."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Protocol

from .verdict import Verdict


class HasMargin(Protocol):
    """A metric with a smallest difference that matters."""

    def least(self, better: float) -> float:
        """Return that difference, given the better of two means."""


class RecommendationReason(StrEnum):
    """Reason for which one of the leaders is recommended."""

    BASELINE_UNBEATEN = "baseline_unbeaten"
    ONLY_LEADER = "only_leader"
    ONLY_WINNER = "only_winner"
    WIDEST_TOLERANCE = "widest_tolerance"
    WIDE_TOLERANCE_CHEAPEST_STEP = "wide_tolerance_cheapest_step"
    CHEAPEST_STEP = "cheapest_step"


@dataclass(frozen=True)
class Candidate:
    """Properties of an entry that a recommendation rests on.

    Args:
        mean: mean of the final scores.
        diverged: number of diverged final runs.
        tolerance_decades: learning-rate tolerance; 0 if unknown.
        memory: state elements per weight; None if unknown.
    """

    mean: float
    diverged: int
    tolerance_decades: float
    memory: int | None


NEAR_OPTIMAL = 0.05
"""A learning rate is near-optimal if its validation loss exceeds the median entry's best loss by at most this fraction
of the decrease from the initial loss.

The median, because the lowest loss of one seed is noisy. The initial loss, because many losses have a floor far above
zero, relative to which all differences are small.
"""
NEAR_OPTIMAL_MARGINS = 2.0
"""Number of margins within which a score is near-optimal: scores have no informative initial value."""


def initial_loss(starts: Iterable[float | None]) -> float | None:
    """Return the median of the finite losses before training; None if there are none."""
    finite = [start for start in starts if start is not None and math.isfinite(start)]
    return median(finite) if finite else None


def near_optimal_limit(
    tried: Mapping[str, Mapping[float, float]], start: float | None = None, score: HasMargin | None = None
) -> float:
    """Return the largest near-optimal validation loss, the same for all entries.

    Args:
        tried: for each entry, the validation loss of each learning rate on the first tuning seed.
        start: loss before training; the largest finite loss in `tried` when None.
        score: the metric, if the losses are scores with inverted sign.
    """
    best = median(min(losses.values()) for losses in tried.values())
    if score is not None:
        return best + NEAR_OPTIMAL_MARGINS * score.least(best)
    if start is None:
        finite = (loss for losses in tried.values() for loss in losses.values() if math.isfinite(loss))
        start = max(finite, default=best)
    return best + NEAR_OPTIMAL * max(0.0, start - best)


def tolerance_decades(losses: Mapping[float, float], limit: float) -> float:
    """Return the learning-rate tolerance: the width in decades of the near-optimal range around the best learning rate.

    Each end of the range is interpolated to where the loss crosses the limit, on a logarithmic scale if losses are
    positive. Next to a diverged run, the range ends at the last learning rate within the limit.
    """
    rates = sorted(losses)
    best = min(rates, key=lambda r: losses[r])
    if not losses[best] <= limit < math.inf:
        return 0.0

    def end(outwards: Sequence[float]) -> float:
        inside = best
        for outside in outwards:
            if losses[outside] > limit:
                if not math.isfinite(losses[outside]):
                    break
                scale = math.log if losses[inside] > 0 else float
                low, high = scale(losses[inside]), scale(losses[outside])
                share = (scale(limit) - low) / (high - low)
                return math.log10(inside) + share * (math.log10(outside) - math.log10(inside))
            inside = outside
        return math.log10(inside)

    place = rates.index(best)
    return end(rates[place + 1 :]) - end(rates[:place][::-1])


def recommend(
    verdict: Verdict, candidates: Mapping[str, Candidate], metric: HasMargin, baseline: str | None = None
) -> tuple[str, RecommendationReason]:
    """Return the recommended leader and the reason: the widest learning-rate tolerance, then the cheapest step.

    Of the leaders, those with the fewest diverged runs are considered, and of these the ones within a margin of the
    best leader's mean, if any: some leaders are merely too variable to rank.

    Args:
        verdict: comparisons of the entries.
        candidates: properties of each entry.
        metric: the metric, whose margin decides which means are near the best.
        baseline: entry that the others were compared with, instead of all pairs.
    """
    leaders = {name: candidates[name] for name in verdict.leaders}
    if baseline in leaders:
        return str(baseline), RecommendationReason.BASELINE_UNBEATEN
    best = verdict.leaders[0]
    if len(leaders) == 1:
        return best, RecommendationReason.ONLY_LEADER if baseline is None else RecommendationReason.ONLY_WINNER
    top = candidates[best].mean
    fewest = min(each.diverged for each in leaders.values())
    stable = {name: each for name, each in leaders.items() if each.diverged == fewest}
    near = {name: each for name, each in stable.items() if abs(each.mean - top) <= metric.least(top)} or stable
    widest = max(round(each.tolerance_decades, 1) for each in near.values())
    wide = {name: each for name, each in near.items() if round(each.tolerance_decades, 1) == widest}
    chosen = min(wide, key=lambda name: math.inf if (memory := wide[name].memory) is None else memory)
    if not widest:
        return chosen, RecommendationReason.CHEAPEST_STEP
    if len(wide) == 1:
        return chosen, RecommendationReason.WIDEST_TOLERANCE
    return chosen, RecommendationReason.WIDE_TOLERANCE_CHEAPEST_STEP


def too_variable(means: Mapping[str, float], leaders: Sequence[str], higher_is_better: bool) -> list[str]:
    """Return the leaders that are too variable to rank.

    No entry wins against them, although their means are behind an entry that another one wins against.
    """
    sign = 1 if higher_is_better else -1
    behind = max((sign * means[name] for name in means if name not in leaders), default=-math.inf)
    return [name for name in leaders if sign * means[name] < behind]
