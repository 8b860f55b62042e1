"""Sentences on runs with fewer examples: in equal time, and at a quarter of the budget."""

from statistics import fmean
from typing import TYPE_CHECKING

from gradprix.utils.wording import format_list

from .units import Unit, format_difference, format_points

if TYPE_CHECKING:
    from gradprix.race.record import RaceRecord

MOST_NAMED = 3
"""Maximum number of entries that a sentence on the budget names."""
PARTS = {0.25: "a quarter"}
"""Shares of the examples in words."""


def format_equal_time(record: "RaceRecord") -> str:
    """Format the comparison in equal time; empty if the runs of all entries take about as long."""
    result = record.equal_time
    if result is None:
        return ""
    reference = next(name for name, ratio in result.ratios.items() if ratio == 1.0)
    slow = sorted(result.slow, key=result.ratios.__getitem__, reverse=True)
    by = " to ".join(dict.fromkeys(f"{result.ratios[name]:.2g}" for name in (slow[-1], slow[0])))
    runs, own = ("Runs of {} take", "their") if len(slow) > 1 else ("A run of {} takes", "its")
    text = f"{runs.format(format_list(slow))} {by} times as long as one of {reference}."
    bound = format_difference(record.plan.metric, result.bounds[result.recommended])
    distance = f"at most {bound} behind the best" if result.bounds[result.recommended] else "not behind the others"
    as_well = " as well" if result.recommended == record.best.name else ""
    is_conclusive = record.verdict.margin is None or result.bounds[result.recommended] <= record.verdict.margin
    return (
        f"{text}  In equal time, with fewer examples in {own} runs, use {result.recommended}{as_well}: it is "
        f"{distance} (95\N{NO-BREAK SPACE}%, {result.seeds} seeds){'' if is_conclusive else ', more than the margin'}."
    )


def format_budget_sensitivity(record: "RaceRecord") -> str:
    """Format the entries whose distance from the reference depends on the budget; empty if there is none."""
    result, metric, margin = record.budget_sensitivity, record.plan.metric, record.verdict.margin
    if result is None or margin is None:
        return ""
    sign = 1 if metric.higher_is_better else -1
    best = max(sign * fmean(values) for values in result.values.values())
    if best <= sign * record.plan.chance_level + margin:
        return ""  # a quarter of the examples is too little for any of them
    moved = {name: change for name, change in result.changes.items() if change.exceeds(margin)}
    moved = dict(sorted(moved.items(), key=lambda item: -abs(item[1].reduced - item[1].full)))
    # Advice is due where one budget misleads about the other: far behind at one, near or ahead at the other.
    gaining = [name for name, change in moved.items() if change.full < change.reduced / 2]
    losing = [name for name, change in moved.items() if change.reduced < change.full / 2]
    part, sentences = PARTS.get(result.share, f"{100 * result.share:g} %"), []
    for names, several, one, advice in (
        (gaining, "gain ground", "gains ground", "a longer run may favour {}"),
        (losing, "lose ground", "loses ground", "expect less of {} in a longer run"),
    ):
        if names:
            each = [
                f"{name} ({_format_distance(metric, moved[name].reduced, result.reference)} with {part} of them, "
                f"{_format_distance(metric, moved[name].full)} with all)"
                for name in names
            ]
            verb, them = (one, "it") if len(names) == 1 else (several, "them")
            sentences.append(f"With more examples, {format_list(each, MOST_NAMED)} {verb}: {advice.format(them)}.")
    return "  ".join(sentences)


def _format_distance(metric: Unit, distance: float, reference: str = "") -> str:
    """Format a distance: `3.3 points behind adam`, or `3.3 points behind` without the name."""
    size = format_points(metric, abs(distance))
    if not reference:
        return f"{size} {'behind' if distance >= 0 else 'ahead'}"
    return f"{size} {'behind' if distance >= 0 else 'ahead of'} {reference}"
