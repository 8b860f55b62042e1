"""Figure of a race's ranking, and the table of all its comparisons. Both are pure functions of the record."""

import math
import re
from functools import partial
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradprix.race import RaceRecord
from gradprix.race.record import EntryResult
from gradprix.text.figures import format_ranking_title, format_standing

from ._formatting import diverged, format_difference, format_margin, format_value, margin, reference, scale, verdict_on
from ._svg import GREY, INK
from .axes import label_width, percent_axis, write_beside
from .figure import Chart, Panel, tag
from .lettering import clean, fit, text_width
from .palette import colour

MARKS = {
    "wins": ("▲", "wins"),
    "slightly ahead": ("△", "ahead"),
    "ties": ("=", "ties"),
    "inconclusive": ("?", "open"),
    "slightly behind": ("▽", "behind"),
    "loses": ("▼", "loses"),
}
"""Sign of each verdict, and the class of its cells in the style sheet. The colour carries no further information."""
ROW = 26
"""Height of a row of the ranking in pixels."""
MIN_AXES = 150
"""Minimum width of the axes of the differences in pixels."""


def ranking(record: RaceRecord) -> Chart:
    """Draw the ranking, best mean first, with a row for each entry.

    The first panel shows the metric of every final run. The second shows the difference of each entry from the
    baseline, or from the entry with the best mean, with its confidence interval. Intervals are simultaneous over all
    comparisons of the race.
    """
    entries, metric = record.ranking, record.plan.metric
    name = reference(record) if record.plan.baseline else "the best mean"
    unit = " (pp)" if metric.percent else ""
    height = ROW * len(entries) + 62
    left = 16 + label_width((entry.name for entry in entries), "bold")
    right = 16 + max(text_width(_standing(record, entry)) for entry in entries)
    title = f"Difference from {fit(name)}{unit}"
    wide = max(400, left + right + MIN_AXES)
    panels = (
        Panel(partial(_draw_seeds, record), metric.name, 400, height, (left, 14, 30, 32)),
        Panel(partial(_draw_differences, record), title, wide, height, (left, right, 30, 32)),
    )
    legend = (
        "Left: a dot for each final run, a bar for their mean. Right: simultaneous 95 % intervals; grey band: the "
        f"margin, {format_margin(metric)}."
    )
    return Chart("ranking", format_ranking_title(record), panels, 2, legend)


def _standing(record: RaceRecord, entry: EntryResult) -> str:
    """Return an entry's result as it is written beside the figure: it names one entry; a long name is shortened."""
    text = re.sub(r" and \d+ more$", "", format_standing(record, entry))
    for other in record.entries:
        text = text.replace(other.name, fit(other.name))
    return clean(text)


def _shade(entry: EntryResult) -> str:
    return colour(entry.name) if entry.is_leader else GREY


def _draw_rows(axes: Axes, record: RaceRecord) -> None:
    """Write the names of the entries beside the rows; leaders are bold."""
    entries = record.ranking
    axes.set_ylim(len(entries) - 0.4, -0.6)
    axes.set_yticks(range(len(entries)), [""] * len(entries))
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    for row, entry in enumerate(entries):
        weight = "bold" if entry.is_leader else "normal"
        write_beside(axes, 0, row, entry.name, xytext=(-8, 0), ha="right", weight=weight, entry=entry.name)


def _draw_seeds(record: RaceRecord, axes: Axes) -> None:
    """Draw a dot for each final run, a cross at the edge if any run diverged, and a bar at the mean."""
    metric, unit = record.plan.metric, scale(record)
    low, high = _seed_range(record)
    pad = 0.06 * (high - low) or 1e-6
    edge = low - pad / 2 if metric.higher_is_better else high + pad / 2
    axes.set_xlim(low - pad, high + pad)
    _draw_rows(axes, record)
    for row, entry in enumerate(record.ranking):
        name, lost = entry.name, diverged(entry)
        values = [value for value, is_lost in zip(entry.final.values, lost, strict=True) if not is_lost]
        shade: dict[str, Any] = {"color": _shade(entry), "linestyle": "none"}
        if values:
            (dots,) = axes.plot([unit * v for v in values], [row] * len(values), "o", alpha=0.5, mew=0, **shade)
            tag(dots, name, [f"{name}: {format_value(record, value)}" for value in values])
        if any(lost):
            (cross,) = axes.plot([edge], [row], "X", **shade)
            scored = format_value(record, record.plan.chance_level)
            tag(cross, name, f"{name}: {sum(lost)} diverged, scored {scored}")
        ends = " to ".join(format_value(record, end) for end in entry.final.ci95)
        (mean,) = axes.plot([unit * entry.final.mean], [row], "|", ms=16, mew=3, **shade)
        tag(mean, name, f"{name}: mean {format_value(record, entry.final.mean)}\n95 % interval {ends}")
    percent_axis(axes.xaxis, metric.percent)


def _draw_differences(record: RaceRecord, axes: Axes) -> None:
    """Draw the difference of each mean from that of the reference, with its interval and a few words at the right."""
    unit, other, least = scale(record), reference(record), scale(record) * margin(record)
    axes.axvspan(-least, least, color=GREY, alpha=0.18, lw=0)
    axes.axvline(0, color=INK, lw=1)
    for row, entry in enumerate(record.ranking):
        name, shade = entry.name, _shade(entry)
        centre, low, high = difference(record, name, other)
        text = f"{name}: {format_difference(record, centre)}"
        if name != other:
            text += f"\n95 % interval {format_difference(record, low)} to {format_difference(record, high)}"
        (line,) = axes.plot([unit * low, unit * high], [row, row], color=shade, lw=2, solid_capstyle="butt")
        (dot,) = axes.plot([unit * centre], [row], "o", color=shade, ms=8)
        for artist in (line, dot):
            tag(artist, name, text)
        standing, whole = _standing(record, entry), clean(format_standing(record, entry))
        label = write_beside(axes, 1, row, standing, xytext=(8, 0), entry=name, width=math.inf)
        tag(label, name, "" if standing == whole else whole)
    _draw_rows(axes, record)


def difference(record: RaceRecord, name: str, other: str) -> tuple[float, float, float]:
    """Return the lead of one entry over another and the ends of its interval; positive if the metric is larger."""
    if name == other:
        return 0.0, 0.0, 0.0
    pair = record.pair(other, name)
    turn = 1 if record.plan.metric.higher_is_better == (pair.a == name) else -1
    low, high = sorted(turn * end for end in pair.ci95)
    return turn * pair.difference, low, high


def _seed_range(record: RaceRecord) -> tuple[float, float]:
    """Return the smallest and the largest of all means and of all runs that did not diverge, in displayed units."""
    values = [entry.final.mean for entry in record.entries]
    for entry in record.entries:
        values += [v for v, flag in zip(entry.final.values, diverged(entry), strict=True) if not flag]
    return scale(record) * min(values), scale(record) * max(values)


class Cell(NamedTuple):
    """Cell of the table of comparisons.

    Args:
        kind: class of the verdict in the style sheet; empty on the diagonal.
        sign: sign of the verdict.
        lead: lead of the row's entry over the column's.
        tip: verdict, interval, p-value, and the number of seeds that would make the comparison conclusive.
    """

    kind: str = ""
    sign: str = ""
    lead: str = ""
    tip: str = ""


def comparison_table(record: RaceRecord) -> dict[str, list[Cell]]:
    """Return the comparisons of each entry with all others, by its name, in the order of the ranking."""
    names = [entry.name for entry in record.ranking]
    return {row: [_cell(record, row, column) for column in names] for row in names}


def _cell(record: RaceRecord, row: str, column: str) -> Cell:
    if row == column:
        return Cell()
    pair, verdict = record.pair(row, column), verdict_on(record, row, column)
    turn = 1 if pair.a == row else -1
    low, high = (format_difference(record, bound) for bound in sorted(turn * bound for bound in pair.ci95))
    lead = format_difference(record, turn * pair.difference)
    lines = [f"{row} against {column}: {verdict}", f"lead {lead}, simultaneous interval {low} to {high}"]
    lines.append(f"adjusted p = {pair.p:.2g}")
    if pair.more_seeds:
        lines.append(f"about {pair.more_seeds:,} more seeds would make it conclusive")
    sign, kind = MARKS[verdict]
    return Cell(kind, sign, lead, "\n".join(lines))
