"""Recommendation of an entry, with the reason. `text/answer.py` formats it as a sentence."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median


class RecommendationReason(StrEnum):
    """Criterion that decided for the recommended entry.

    `ONLY_LEADER` and the values after it occur only in the records of earlier versions.
    """

    BASELINE_UNBEATEN = "baseline_unbeaten"
    ONLY_CANDIDATE = "only_candidate"
    ONLY_STABLE = "only_stable"
    WIDEST_TOLERANCE = "widest_tolerance"
    FASTEST_STEP = "fastest_step"
    BEST_MEAN_OF_WIDEST = "best_mean_of_widest"
    BEST_MEAN_OF_FASTEST = "best_mean_of_fastest"
    BEST_MEAN = "best_mean"
    ONLY_WINNER = "only_winner"
    ONLY_LEADER = "only_leader"
    WIDE_TOLERANCE_CHEAPEST_STEP = "wide_tolerance_cheapest_step"
    CHEAPEST_STEP = "cheapest_step"


@dataclass(frozen=True)
class Candidate:
    """Properties of an entry that determine the recommendation.

    Args:
        shortfall: amount by which this entry's mean is worse than the best mean.
        bound: upper bound of the entry's regret; see `regret_bounds`.
        diverged: number of diverged final runs.
        tolerance_decades: width of the learning-rate tolerance in decades; 0 if unknown.
        step_seconds: duration of a training step; None if unknown.
    """

    shortfall: float
    bound: float
    diverged: int
    tolerance_decades: float
    step_seconds: float | None


LARGEST_SHORTFALL = 0.25
"""Maximum shortfall, in margins, of an entry that is recommended because its regret is below the margin."""
EQUAL_STEPS = 1.05
"""Durations of steps that differ by at most this factor count as equal, because timings are not more exact."""


def near_optimal(candidates: Mapping[str, Candidate], margin: float) -> dict[str, Candidate]:
    """Return the near-optimal ones of the candidates with the fewest diverged final runs; see `recommend`."""
    fewest = min(each.diverged for each in candidates.values())
    return {
        name: each
        for name, each in candidates.items()
        if each.diverged == fewest and each.bound <= margin and each.shortfall <= LARGEST_SHORTFALL * margin
    }


def recommend(
    candidates: Mapping[str, Candidate],
    margin: float,
    winners: Sequence[str] | None = None,
    baseline: str | None = None,
) -> tuple[str, RecommendationReason]:
    """Return the recommended entry and the reason.

    Only the entries with the fewest diverged final runs are considered. Among them, an entry is near-optimal if the
    bound of its regret is at most the margin and its mean is close to the best. If several entries are near-optimal,
    the one with the widest learning-rate tolerance is recommended, because the best learning rate changes from task to
    task. Ties go to the fastest step, then to the best mean. If no entry is near-optimal, the one with the best mean is
    recommended.

    Args:
        candidates: properties of each entry.
        margin: the smallest difference that matters, in the metric's units.
        winners: in a race with a baseline, the entries that win against it. One of them is recommended, or the baseline
            if there are none.
        baseline: entry that all others are compared with; None if all pairs are compared.
    """
    if baseline is not None and not winners:
        return baseline, RecommendationReason.BASELINE_UNBEATEN
    if winners:
        candidates = {name: candidates[name] for name in winners}
    fewest = min(each.diverged for each in candidates.values())
    stable = {name: each for name, each in candidates.items() if each.diverged == fewest}
    near = near_optimal(stable, margin)
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
    return fast[0], best_of_wide if fast[0] == wide[0] else RecommendationReason.BEST_MEAN_OF_FASTEST


def initial_loss(starts: Iterable[float | None]) -> float | None:
    """Return the median of the finite losses before training, or None if no loss is finite."""
    finite = [start for start in starts if start is not None and math.isfinite(start)]
    return median(finite) if finite else None


def too_variable(means: Mapping[str, float], leaders: Sequence[str], higher_is_better: bool) -> list[str]:
    """Return the leaders that are too variable to rank.

    Their mean is worse than that of an entry that is not a leader. They lead only because their runs vary so much that
    no entry wins against them.
    """
    sign = 1 if higher_is_better else -1
    behind = max((sign * means[name] for name in means if name not in leaders), default=-math.inf)
    return [name for name in leaders if sign * means[name] < behind]
