"""Comparison of races in sentences, and the settings in which they differ."""

from typing import TYPE_CHECKING

from gradprix.utils.wording import format_list, format_number

from .plan import format_options
from .units import format_points

if TYPE_CHECKING:
    from gradprix.race.plan_description import PlannedEntry, Value
    from gradprix.race.race_comparison import MeanChange, RaceComparison, RankReversal
    from gradprix.race.record import RaceRecord

MISSING = "–"
"""Text for a setting that a race does not have."""


def conclusions(comparison: "RaceComparison") -> list[str]:
    """Return the sentences about races that are the same, leaders, recommendations and rank reversals."""
    count = len(comparison.records)
    everywhere = "both" if count == 2 else f"all {format_number(count)}"
    lines = [
        f"{format_list([comparison.names[i] for i in group])} are the same race: its plan and the numbers of all "
        "training runs are equal."
        for group in comparison.same_races
        if len(group) > 1
    ]
    is_one_race = len(comparison.same_races) == 1
    if not is_one_race:
        leaders = comparison.common_leaders
        lines.append(
            f"{format_list(leaders)} lead{'s' * (len(leaders) == 1)} in {everywhere}."
            if leaders
            else f"No optimizer leads in {everywhere}."
        )
    recommended = [record.verdict.recommended for record in comparison.records]
    if len(set(recommended)) > 1:  # also in one race, if step times decided
        each = [f"{name} in {race}" for name, race in zip(recommended, comparison.names, strict=True)]
        lines.append(f"Recommended: {format_list(each)}.")
    elif not is_one_race:
        lines.append(f"{recommended[0]} is recommended in {everywhere}.")
    reversals = comparison.reversals
    lines += [format_reversal(comparison, each) for each in reversals]
    if not reversals and not is_one_race:
        lines.append("No rank reversal is supported by the intervals of two races.")
    return lines


def format_reversal(comparison: "RaceComparison", reversal: "RankReversal") -> str:
    """Format a rank reversal."""
    race, other = comparison.names[reversal.race], comparison.names[reversal.other_race]
    return (
        f"Rank reversal: {reversal.first} is ahead of {reversal.second} in {race}, and behind it in {other}; the "
        "intervals of both races support it."
    )


def warnings(comparison: "RaceComparison") -> list[str]:
    """Return a warning for each reason why the scores of the races are not comparable."""
    lines, plans = [], [record.plan for record in comparison.records]
    if not comparison.has_same_metric:
        names = list(dict.fromkeys(plan.metric.name for plan in plans))
        lines.append(f"The races have different metrics ({format_list(names)}): compare ranks, not scores.")
    if not comparison.has_same_task:
        names = list(dict.fromkeys(record.task for record in comparison.records))
        what = f"different tasks ({format_list(names)})" if len(names) > 1 else "different data or models"
        lines.append(f"The races have {what}: compare ranks, not scores.")
    if len({plan.examples for plan in plans}) > 1:
        lines.append("The training runs have different numbers of examples, which changes scores and may change ranks.")
    if not comparison.common_entries:
        lines.append("The races have no optimizer in common.")
    return lines


def format_change(record: "RaceRecord", change: "MeanChange | None") -> str:
    """Format the change of a mean with its interval: `+0.4 ± 0.3 points`; empty if it is unknown."""
    if change is None:
        return ""
    metric = record.plan.metric
    sign = "+" if change.difference > 0 else "−" if change.difference < 0 else ""
    half = format_points(metric, change.half_width)
    return f"{sign}{format_points(metric, abs(change.difference)).removesuffix(' points')} ± {half}"


def different_settings(comparison: "RaceComparison") -> list[tuple[str, list[str]]]:
    """Return the settings in which the races differ, with their value in each race."""
    each = [settings(record, comparison.common_entries) for record in comparison.records]
    labels = dict.fromkeys(label for values in each for label in values)
    rows = [(label, [values.get(label, MISSING) for values in each]) for label in labels]
    return [(label, values) for label, values in rows if len(set(values)) > 1]


def settings(record: "RaceRecord", entries: list[str]) -> dict[str, str]:
    """Return the settings of a race by their label.

    Args:
        record: record of the race.
        entries: names of the entries whose search spaces and fixed settings are included.
    """
    plan, metric = record.plan, record.plan.metric
    own = [entry.name for entry in plan.entries if entry.name not in entries]
    margin = f"{100 * metric.margin:g} %" if metric.relative or metric.percent else f"{metric.margin:g}"
    return {
        "Task": record.task,
        "Data and model": f"fingerprint {plan.fingerprint[:8]}",
        "Metric": metric.name,
        "Margin": margin + " of the better mean" * metric.relative,
        "Epochs": f"{plan.epochs:g}",
        "Examples per run": MISSING if plan.examples is None else f"{plan.examples:,}",
        "Batch size": str(plan.batch_size),
        "Learning-rate schedule": plan.schedule,
        "Training options": ", ".join(format_options(plan.options, plan.tune)) or MISSING,
        "Tuned hyperparameters": ", ".join(plan.tune) or MISSING,
        "Tuning trials": str(plan.trials),
        "Final seeds": str(record.budget.seeds),
        "Base random seed": str(plan.seed),
        "Baseline": plan.baseline or MISSING,
        "Device": plan.mode.device,
        "Optimizers in this race alone": ", ".join(own) or MISSING,
        **{name: value for entry in plan.entries if entry.name in entries for name, value in _entry_settings(entry)},
        **{f"Version of {name}": version for name, version in record.versions.items()},
    }


def _entry_settings(entry: "PlannedEntry") -> list[tuple[str, str]]:
    ranges = [f"{name} {_format_value(ends[0])} to {_format_value(ends[-1])}" for name, ends in entry.space.items()]
    fixed = [f"{name} = {_format_value(value)}" for name, value in entry.fixed.items()]
    return [
        (f"{entry.name}: search range", ", ".join(ranges) or MISSING),
        (f"{entry.name}: fixed settings", ", ".join(fixed) or MISSING),
        (f"{entry.name}: batch size", str(entry.batch_size)),
    ]


def _format_value(value: "Value") -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
