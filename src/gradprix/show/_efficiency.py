"""Tuning budget and speed: results with fewer trials, results at default settings, and time to the target."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradprix.race import RaceRecord
from gradprix.race.record import EntryResult
from gradprix.text.figures import format_budget_title
from gradprix.utils.wording import format_count

from ._formatting import format_difference, format_seconds, format_value, scale
from ._svg import SOFT
from ._training_figures import coloured_entries
from .axes import label_ends, label_width, percent_axis
from .figure import MARKERS, Chart, Panel, line_style, tag
from .palette import styles

CAPTION_TRIALS = (1, 2, 3)
"""Numbers of trials for which the caption names the best entry."""


def budget(record: RaceRecord) -> Chart:
    """Draw the expected best validation metric after n random trials against n, with a line for each entry."""
    title = f"validation {record.plan.metric.name.removeprefix('test ')} expected after n trials"
    right = 14 + label_width(entry.name for entry in record.entries)
    panel = Panel(partial(_draw_budget, record), title, height=300, margins=(56, right, 30, 44))
    legend = "Expected best score after n learning rates drawn at random from those of the first phase of tuning."
    return Chart("tuning-budget", format_budget_title(record), (panel,), legend=legend)


def _draw_budget(record: RaceRecord, axes: Axes) -> None:
    """Draw the lines of all entries, the coloured ones on top, with their names at the right."""
    coloured, looks = coloured_entries(record), styles(entry.name for entry in record.entries)
    order = sorted(record.ranking, key=lambda entry: entry.name in coloured)
    expected = {e.name: [scale(record) * value for value in record.efficiency.expected[e.name]] for e in order}
    displayed = [value for values in expected.values() for value in values[1:] or values]
    pad = 0.06 * (max(displayed) - min(displayed)) or 0.5
    axes.set_ylim(min(displayed) - pad, max(displayed) + pad)
    axes.set_xlim(0.9, max(map(len, expected.values())))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("random trials of the first phase")
    percent_axis(axes.yaxis, record.plan.metric.percent)
    for entry in order:
        values, look = expected[entry.name], looks[entry.name]
        style = line_style(look, entry.name not in coloured)
        (line,) = axes.plot(range(1, len(values) + 1), values, label=entry.name, **style)
        marker = MARKERS[look.marker]
        (dots,) = axes.plot(range(1, len(values) + 1), values, marker, mew=0, color=style["color"])
        tag(line, entry.name)
        tag(dots, entry.name, [f"{entry.name}, {format_count(i + 1, 'trial')}: {v:.4g}" for i, v in enumerate(values)])
    ranked = sorted(record.ranking, key=lambda entry: entry.name not in coloured)
    shades = {e.name: looks[e.name].colour if e.name in coloured else SOFT for e in ranked}
    label_ends(axes, [(expected[e.name][-1], e.name, shades[e.name]) for e in ranked])


def format_best_by_trials(record: RaceRecord) -> list[str]:
    """Return a phrase for each number of trials in `CAPTION_TRIALS`.

    It names the entry with the best expected score after that number of trials, the score, and the probability that
    this entry is the best of all.
    """
    expected, chances = record.efficiency.expected, record.efficiency.probability_best
    turn = 1 if record.plan.metric.higher_is_better else -1
    most = min(map(len, expected.values()))
    phrases = []
    for k in [k for k in CAPTION_TRIALS if k < most]:
        name = max(expected, key=lambda name: turn * expected[name][k - 1])
        share = f"best of all in {100 * chances[name][k - 1]:.0f}\u00a0% of draws"
        score = format_value(record, expected[name][k - 1])
        phrases.append(f"with {format_count(k, 'trial')} {name} ({score}, {share})")
    return phrases


@dataclass(frozen=True)
class SpeedTable:
    """Table of efficiency.

    Args:
        columns: titles of the columns after the entry.
        rows: a list of cells for each entry, by its name.
        notes: a sentence for each reason why columns are left out.
    """

    columns: list[str]
    rows: dict[str, list[str]]
    notes: list[str]


def format_speed(record: RaceRecord) -> SpeedTable:
    """Format the table of efficiency. Columns that are empty for all entries are left out."""
    points = " (pp)" if record.plan.metric.percent else ""
    unit = "epochs" if record.plan.loop else "examples"
    columns = ["at its default", "tuned", f"gained by tuning{points}", "reached the target", f"{unit} until then"]
    columns += [] if record.plan.loop else ["time per step", "time until then"]
    rows = {entry.name: _format_entry_speed(record, entry) for entry in record.ranking}
    shown = [i for i in range(len(columns)) if any(row[i] != "-" for row in rows.values())]
    omitted = {column for i, column in enumerate(columns) if i not in shown}
    unknown = unit if record.plan.loop else f"{unit} and time"
    reasons = {
        "at its default": "No default learning rate lies in the range that was tried.",
        f"{unit} until then": f"No entry reached the target in most of its runs: {unknown} until then are unknown.",
    }
    return SpeedTable(
        [columns[i] for i in shown],
        {name: [row[i] for i in shown] for name, row in rows.items()},
        [reason for column, reason in reasons.items() if column in omitted],
    )


def _format_entry_speed(record: RaceRecord, entry: EntryResult) -> list[str]:
    """Format an entry's row of the table of efficiency.

    Returns:
        The score with the default learning rate, the tuned score, their difference, the number of runs that reached the
        target, the number of examples until then, and, for tasks, the duration of a step and the time to the target.
    """
    efficiency, name = record.efficiency, entry.name
    turn = 1 if record.plan.metric.higher_is_better else -1
    start, tuned = efficiency.default[name], efficiency.tuned[name]
    examples = efficiency.examples[name]
    seen = until(examples)
    cells = [
        "-" if start is None else format_value(record, start),
        format_value(record, tuned),
        "-" if start is None else format_difference(record, turn * (tuned - start)),
        f"{sum(x is not None for x in examples)} of {len(examples)}",
        "-" if seen is None else f"{seen:,.0f}",
    ]
    if not record.plan.loop:
        step = record.cost.step_seconds[name]
        cells += ["-" if step is None else format_seconds(step), format_seconds(seconds(record, entry))]
    return cells


def until(examples: Sequence[float | None]) -> float | None:
    """Return the median number of examples that runs needed to reach the target.

    Returns None if half of the runs or more did not reach it.

    Args:
        examples: number of examples that each run needed; None if it did not reach the target.
    """
    middle = median(math.inf if seen is None else seen for seen in examples)
    return middle if math.isfinite(middle) else None


def seconds(record: RaceRecord, entry: EntryResult) -> float | None:
    """Estimate the seconds that a plain training loop without evaluation needs to reach the target.

    Returns None if half of the runs or more did not reach the target, or if the duration of a step is unknown.
    """
    seen, step = until(record.efficiency.examples[entry.name]), record.cost.step_seconds[entry.name]
    if seen is None or step is None or not entry.updates or not record.plan.examples:
        return None
    return float(seen / record.plan.examples * entry.updates * step)
