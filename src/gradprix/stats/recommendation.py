"""Recommendation: which entry to use, and the reason. `text/answer.py` puts it into words."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median


class RecommendationReason(StrEnum):
    """What decided for the recommended entry; values from `ONLY_LEADER` on occur only in earlier records."""

    BASELINE_UNBEATEN = "baseline_unbeaten"
    ONLY_CANDIDATE = "only_candidate"
    ONLY_STABLE = "only_stable"
    WIDEST_TOLERANCE = "widest_tolerance"
    FASTEST_STEP = "fastest_step"
    BEST_MEAN_OF_WIDEST = "best_mean_of_widest"
    BEST_MEAN = "best_mean"
    ONLY_WINNER = "only_winner"
    ONLY_LEADER = "only_leader"
    WIDE_TOLERANCE_CHEAPEST_STEP = "wide_tolerance_cheapest_step"
    CHEAPEST_STEP = "cheapest_step"


@dataclass(frozen=True)
class Candidate:
    """Properties of an entry that a recommendation rests on.

    Args:
        shortfall: best mean of all entries less this entry's mean, in the better direction.
        bound: upper bound of its regret; see `regret_bounds`.
        diverged: number of diverged final runs.
        tolerance_decades: learning-rate tolerance; 0 if unknown.
        step_seconds: duration of a training step; None if unknown.
    """

    shortfall: float
    bound: float
    diverged: int
    tolerance_decades: float
    step_seconds: float | None


LARGEST_SHORTFALL = 0.25
"""Largest shortfall of a recommended entry, in margins, if its regret is below a margin."""
EQUAL_STEPS = 1.05
"""Steps whose durations differ by less than this factor count as equal: timings are not more exact."""


def recommend(
    candidates: Mapping[str, Candidate],
    margin: float,
    winners: Sequence[str] | None = None,
    baseline: str | None = None,
) -> tuple[str, RecommendationReason]:
    """Return the recommended entry and the reason.

    Candidates are the entries whose regret is below the margin with confidence and whose mean is close to the best: any
    of them will do. The widest learning-rate tolerance decides between them, because a new task seldom has the same
    optimum; then the faster step. Without such entries, the best mean decides. An entry with a diverged final run is
    recommended only if every entry has one.

    Args:
        candidates: properties of each entry.
        margin: the smallest difference that matters, in the metric's units.
        winners: with a baseline, the entries that win against it.
        baseline: entry that the others are compared with, instead of all pairs.
    """
    if baseline is not None and not winners:
        return baseline, RecommendationReason.BASELINE_UNBEATEN
    if winners:
        candidates = {name: candidates[name] for name in winners}
    fewest = min(each.diverged for each in candidates.values())
    stable = {name: each for name, each in candidates.items() if each.diverged == fewest}
    near = {
        name: each
        for name, each in stable.items()
        if each.bound <= margin and each.shortfall <= LARGEST_SHORTFALL * margin
    }
    by_mean = sorted(stable, key=lambda name: stable[name].shortfall)
    if len(candidates) == 1:
        return by_mean[0], RecommendationReason.ONLY_WINNER
    if len(stable) == 1:
        return by_mean[0], RecommendationReason.ONLY_STABLE
    if not near:
        return by_mean[0], RecommendationReason.BEST_MEAN
    if len(near) == 1:
        return next(iter(near)), RecommendationReason.ONLY_CANDIDATE
    widest = max(round(each.tolerance_decades, 1) for each in near.values())
    wide = [name for name in by_mean if name in near and round(near[name].tolerance_decades, 1) == widest]
    if len(wide) == 1:
        return wide[0], RecommendationReason.WIDEST_TOLERANCE
    best_of_wide = RecommendationReason.BEST_MEAN_OF_WIDEST if wide[0] != by_mean[0] else RecommendationReason.BEST_MEAN
    seconds = {name: near[name].step_seconds for name in wide}
    known = [each for each in seconds.values() if each is not None]
    if len(known) < len(wide):
        return wide[0], best_of_wide
    fast = [name for name in wide if (seconds[name] or 0) <= EQUAL_STEPS * min(known)]
    if len(fast) == 1:
        return fast[0], RecommendationReason.FASTEST_STEP
    return fast[0], best_of_wide if fast[0] == wide[0] else RecommendationReason.BEST_MEAN_OF_WIDEST


def initial_loss(starts: Iterable[float | None]) -> float | None:
    """Return the median of the finite losses before training; None if there are none."""
    finite = [start for start in starts if start is not None and math.isfinite(start)]
    return median(finite) if finite else None


def too_variable(means: Mapping[str, float], leaders: Sequence[str], higher_is_better: bool) -> list[str]:
    """Return the leaders that are too variable to rank.

    These are leaders whose mean is worse than that of an entry that has lost a comparison.
    """
    sign = 1 if higher_is_better else -1
    behind = max((sign * means[name] for name in means if name not in leaders), default=-math.inf)
    return [name for name in leaders if sign * means[name] < behind]
