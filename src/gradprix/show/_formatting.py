"""Formatting of the numbers in a record, for pages, figures and the terminal."""

from collections.abc import Mapping

from gradprix.race import RaceRecord
from gradprix.race.plan_description import MetricDescription, Value
from gradprix.race.record import EntryResult
from gradprix.stats.verdict import PairVerdict
from gradprix.text import units
from gradprix.text.units import format_factor

OPPOSITE = {"wins": "loses", "slightly ahead": "slightly behind"}
"""Verdict from the point of view of the second entry, for the verdicts that are not symmetric."""


def reference(record: RaceRecord) -> str:
    """Return the name of the entry that others are displayed against: the baseline, or the entry with the best mean."""
    return record.plan.baseline or record.ranking[0].name


def verdict_on(record: RaceRecord, one: str, other: str) -> str:
    """Return the verdict of a comparison, from the point of view of entry `one`."""
    pair = record.pair(one, other)
    if pair.verdict is PairVerdict.INCONCLUSIVE:
        return "inconclusive"
    return pair.words if pair.a == one else OPPOSITE.get(pair.words, pair.words)


def diverged(entry: EntryResult) -> list[bool]:
    """Return a flag for each final run, in the order of the seeds: True if the run diverged."""
    return [step is not None for step in entry.final.divergence_steps]


def scale(record: RaceRecord) -> float:
    """Return the factor from the metric to displayed values: 100 for percentages, otherwise 1."""
    return 100.0 if record.plan.metric.percent else 1.0


def margin(record: RaceRecord) -> float:
    """Return the margin, the smallest difference that matters, in the metric's units."""
    recorded = record.verdict.margin  # None in earlier records
    return record.plan.metric.least(record.ranking[0].final.mean) if recorded is None else recorded


def format_value(record: RaceRecord, number: float) -> str:
    """Format a value of the metric: `97.2 %`, or four significant digits."""
    return f"{100 * number:.1f}\u00a0%" if record.plan.metric.percent else f"{number:.4g}"


def format_difference(record: RaceRecord, difference: float) -> str:
    """Format a difference of the metric with its sign and without a unit; percentages are multiplied by 100."""
    written = f"{scale(record) * difference:{'+.2f' if record.plan.metric.percent else '+.3g'}}"
    return written.replace("-", "−") if float(written) else written[1:]


def format_mean(record: RaceRecord, entry: EntryResult) -> str:
    """Format the mean of an entry and the half-width of its 95 % confidence interval: `97.5 ± 0.3 %`."""
    mean, half = entry.final.mean, (entry.final.ci95[1] - entry.final.ci95[0]) / 2
    return f"{100 * mean:.1f} ± {100 * half:.1f}\u00a0%" if record.plan.metric.percent else f"{mean:.4g} ± {half:.2g}"


def format_distance(record: RaceRecord, distance: float | None) -> str:
    """Format the absolute value of a difference with its unit: `0.43 points`; "-" if it is None."""
    return "-" if distance is None else units.format_difference(record.plan.metric, distance)


def format_tolerance(entry: EntryResult) -> str:
    """Format the learning-rate tolerance, as ends and factor: `0.0068–0.015, ×2.2`.

    If the ends are equal or unknown, only the factor is given; for an entry that tunes no learning rate, "-".
    """
    if "lr" not in entry.tuned:
        return "-"
    low, high = entry.tolerance or (0.0, 0.0)
    return f"{low:g}–{high:g}, " * (low < high) + format_factor(entry.tolerance_decades)


def format_margin(metric: MetricDescription) -> str:
    """Format the margin, the smallest difference that matters, with its unit."""
    if metric.relative:
        return f"{100 * metric.margin:g} % of the better mean"
    if not metric.percent:
        return f"{metric.margin:g}"
    points = f"{100 * metric.margin:g}"
    return f"{points} percentage point{'' if points == '1' else 's'}"


def format_setting(tuned: Mapping[str, Value]) -> str:
    """Format tuned values: the learning rate without its name, then each other value with its name."""
    written = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in tuned.items()}
    values = [value if name == "lr" else f"{name} {value}" for name, value in written.items()]
    return ", ".join(values) or "nothing tuned"


def format_seconds(seconds: float | None) -> str:
    """Format a duration with its unit; "-" if it is None."""
    return "-" if seconds is None else units.format_duration(seconds)


def format_epochs(number: float) -> str:
    """Format a number of epochs: `20 epochs`, or `0.25 of an epoch`."""
    if number == 1:
        return "1 epoch"
    return f"{number:,} epochs" if number > 1 else f"{number:.2g} of an epoch"


def format_integer(number: int | None) -> str:
    """Format an integer with thousands separators; "-" if it is None."""
    return "-" if number is None else f"{number:,}"


def format_batch_size(size: int) -> str:
    """Format a batch size; 0 means full-batch training and becomes `all`."""
    return f"{size:,}" if size else "all"
