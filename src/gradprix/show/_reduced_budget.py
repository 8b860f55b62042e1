"""Tables of the runs with fewer examples: at a quarter of the budget, and in equal time."""

from statistics import fmean

from gradprix.race import RaceRecord

from ._formatting import format_difference, format_distance, format_value, margin
from ._sections import Estimate


def format_budget_changes(record: RaceRecord) -> dict[str, list[Estimate]]:
    """Return cells by entry: distances from the reference at both budgets, and their difference with its interval."""
    if record.budget_sensitivity is None:
        return {}
    changes, least = record.budget_sensitivity.changes, margin(record)
    rows = {}
    for entry in record.ranking:
        if (change := changes.get(entry.name)) is None:
            continue
        low, high = (format_difference(record, end) for end in change.ci95)
        difference = format_difference(record, change.reduced - change.full)
        rows[entry.name] = [
            Estimate(format_difference(record, change.reduced)),
            Estimate(format_difference(record, change.full)),
            Estimate(difference, f"{low} to {high}", change.exceeds(least)),
        ]
    return rows


def format_equal_times(record: RaceRecord) -> dict[str, list[str]]:
    """Return cells by entry, best mean in equal time first: time of a full run, examples, mean and bound."""
    result = record.equal_time
    if result is None:
        return {}
    means = {name: fmean(values) for name, values in result.values.items()}
    names = sorted(means, key=means.__getitem__, reverse=record.plan.metric.higher_is_better)
    return {
        name: [
            f"×{result.ratios[name]:.2f}",
            f"{100 * result.shares[name]:.0f}\u00a0%" if name in result.slow else "all",
            format_value(record, means[name]),
            format_distance(record, result.bounds[name]),
        ]
        for name in names
    }
