"""Reason of a recommendation, in words that the numbers of the record support."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from gradprix.stats.recommendation import LARGEST_SHORTFALL, RecommendationReason
from gradprix.utils.wording import format_count

from .figures import format_standing
from .units import format_difference, format_duration, format_factor, format_value

if TYPE_CHECKING:
    from gradprix.race.record import EntryResult, RaceRecord

R = RecommendationReason
PHRASES = {
    R.BASELINE_UNBEATEN: "nothing wins against it",
    R.ONLY_WINNER: "no other wins against {baseline}",
    R.ONLY_STABLE: "fewer of its final runs diverged than of any other",
    R.ONLY_LEADER: "the only leader",
    R.ONLY_CANDIDATE: "the only one {shown_near}",
    R.BEST_MEAN: "the best mean{of_stable}, {mean}",
    R.WIDEST_TOLERANCE: "the widest learning-rate tolerance {of_near}, {tolerance}",
    R.FASTEST_STEP: "the fastest step, {step}, among those with the widest learning-rate tolerance {of_near}",
    R.BEST_MEAN_OF_WIDEST: "the best mean, {mean}, among those with the widest learning-rate tolerance {of_near}",
    R.BEST_MEAN_OF_FASTEST: (
        "the best mean, {mean}, among those with the fastest steps and the widest learning-rate tolerance {of_near}"
    ),
    R.WIDE_TOLERANCE_CHEAPEST_STEP: "a wide learning-rate tolerance{memory}",
    R.CHEAPEST_STEP: "the first of the leaders in the order of entries{memory}",
}
"""Phrase for each reason, with places for the numbers."""


def recommended_group(record: "RaceRecord") -> list[str]:
    """Return the names of the entries that are shown to be within the margin of the best, best mean first.

    It is empty if the recommended entry is not among them, and in records of earlier versions.
    """
    margin = record.verdict.margin
    names = [
        entry.name
        for entry in record.ranking
        if entry.bound is not None and margin is not None and entry.bound <= margin and not entry.final.diverged
    ]
    return names if record.verdict.recommended in names else []


def format_reason(record: "RaceRecord") -> str:
    """Format the reason of the recommendation as a phrase, with its number: `the best mean, 97.6 %`."""
    reason, metric = record.verdict.reason, record.plan.metric
    entry, group = record.entry(record.verdict.recommended), recommended_group(record)
    quarter = LARGEST_SHORTFALL * (record.verdict.margin or 0.0)
    closest = f"with a mean within {format_difference(metric, quarter)} of the best" if quarter else "near the best"
    seconds = record.cost.step_seconds.get(entry.name)
    return PHRASES[reason].format(
        baseline=record.plan.baseline,
        mean=format_value(metric, entry.final.mean),
        tolerance=format_factor(entry.tolerance_decades),
        step="unknown" if seconds is None else format_duration(seconds),
        shown_near="shown to be within the margin of the best" if len(group) == 1 else closest,
        of_stable=_of_stable(record, entry),
        of_near="of these" if group and _all_near(record, group, quarter) else f"of those {closest}",
        memory=_least_memory(record, entry),
    )


def format_place(record: "RaceRecord", entry: "EntryResult") -> str:
    """Describe the place of an entry in a few words: recommended, leader, unstable, or to whom it loses."""
    if entry.name in recommended_group(record):
        return "recommended"
    if record.plan.baseline is None and entry.is_leader:
        return "leader"
    if record.plan.baseline is None and entry.final.diverged:
        return f"diverged on {format_count(entry.final.diverged, 'seed')}"
    return format_standing(record, entry)


def _all_near(record: "RaceRecord", group: Collection[str], shortfall: float) -> bool:
    """Return True if the mean of each entry of a group is so close to the best that it could be recommended."""
    means = [record.means[name] for name in group]
    return max(means) - min(means) <= shortfall


def _of_stable(record: "RaceRecord", entry: "EntryResult") -> str:
    """Restrict the best mean to those entries among which it is the best; empty if it is the best of all."""
    if entry is record.ranking[0] or entry.final.mean == record.ranking[0].final.mean:
        return ""
    return (
        f" of those that win against {record.plan.baseline}"
        if record.plan.baseline
        else " of those that diverged least"
    )


def _least_memory(record: "RaceRecord", entry: "EntryResult") -> str:
    """Name the criterion of earlier versions, if it did decide: the optimizer's memory for each weight."""
    others = [record.entry(name).memory for name in record.verdict.leaders if name != entry.name]
    if entry.memory is None or not others or not all(each is not None and entry.memory < each for each in others):
        return ""
    return " and the least optimizer memory of the leaders"
