"""Comparison of races, for the terminal and as an HTML page."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from gradprix.race.race_comparison import RaceComparison
from gradprix.text.race_comparison import conclusions, different_settings, format_change, warnings
from gradprix.utils.files import write_atomically

from ._formatting import format_mean, scale
from .tables import make_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .figure import Chart

MAX_PANELS = 12
"""Maximum number of optimizers whose curves are drawn."""
DASHES = ("solid", "dashed", "dotted", "dashdot")
"""Line style of each race; further races begin again with the first."""
PANEL: dict[str, Any] = {"width": 310, "height": 210, "margins": (52, 12, 30, 44)}


class Standing(NamedTuple):
    """An entry in a race.

    Args:
        rank: its rank, from 1; None if it does not take part.
        mean: its formatted mean with the 95 % confidence interval; empty if it does not take part.
        is_leader: True if it is one of the leaders.
    """

    rank: int | None
    mean: str
    is_leader: bool


class ComparisonRow(NamedTuple):
    """Row of the table of entries.

    Args:
        name: name of the entry.
        standings: the entry in each race.
        rank_change: ranks by which it rises from the first race to the last, among the entries of both; None if it is
            missing in one of them.
        change: formatted change of its mean; empty if it is unknown.
        is_clear: True if the interval of the change excludes zero.
    """

    name: str
    standings: tuple[Standing, ...]
    rank_change: int | None
    change: str
    is_clear: bool


def comparison_rows(comparison: RaceComparison) -> list[ComparisonRow]:
    """Return a row for each entry, those of all races first."""
    rows = []
    for name in comparison.entries:
        standings = tuple(_standing(comparison, race, name) for race in range(len(comparison.records)))
        change = comparison.change(name)
        text = format_change(comparison.records[0], change)
        rise = comparison.rank_change(name)
        rows.append(ComparisonRow(name, standings, rise, text, change is not None and change.is_clear))
    return rows


def _standing(comparison: RaceComparison, race: int, name: str) -> Standing:
    record, rank = comparison.records[race], comparison.rank(race, name)
    if rank is None:
        return Standing(None, "", False)
    entry = record.entry(name)
    return Standing(rank, format_mean(record, entry), entry.is_leader)


def format_rank_change(rise: int | None) -> str:
    """Format a change of rank: `▲ 2`, `▼ 1`, `=`; empty if it is unknown."""
    if rise is None:
        return ""
    return "=" if not rise else f"{'▲' if rise > 0 else '▼'} {abs(rise)}"


def comparison_answer(comparison: RaceComparison) -> RenderableType:
    """Return the comparison for the terminal: sentences, the entries in each race, and the settings that differ."""
    rows = comparison_rows(comparison)
    has_change = any(row.change for row in rows)
    columns = ("", *comparison.names, "rank change", *["mean change"] * has_change)
    table = make_table(*columns, right=tuple(range(1, len(columns))))
    for row in rows:
        cells = [
            _mark("–" if each.rank is None else f"{each.rank}. {each.mean}", each.is_leader) for each in row.standings
        ]
        change = [_mark(row.change, row.is_clear)] * has_change
        table.add_row(row.name, *cells, format_rank_change(row.rank_change), *change)
    note = (
        f"Rank and mean ± 95 % interval. *: a leader{', or a change that excludes 0' * has_change}. "
        "Rank change: from the first race to the last, among the optimizers of both."
    )
    lines = [Text(line) for line in (*warnings(comparison), *conclusions(comparison))]
    parts: list[RenderableType] = [*lines, Text(), table, Text(note)]
    if settings := different_settings(comparison):
        different = make_table("different setting", *comparison.names)
        for label, values in settings:
            different.add_row(label, *map(Text, values))
        parts += [Text(), different]
    return Group(*parts)


def _mark(cell: str, is_marked: bool) -> Text:
    """Return a cell of a table, with an asterisk, which also shows where nothing is bold, if it is marked."""
    return Text(f"* {cell}", "bold") if is_marked else Text(cell)


def comparison_page(comparison: RaceComparison, layout: Any = "page.html.jinja", **variables: Any) -> str:
    """Return the comparison as an HTML page.

    Args:
        comparison: comparison of races.
        layout: template of the page around it, with the blocks `title`, `nav` and `body`.
        variables: variables of another layout.
    """
    from ._templates import render

    return render(
        "comparison.html.jinja",
        layout=layout,
        **variables,
        comparison=comparison,
        rows=comparison_rows(comparison),
        format_rank_change=format_rank_change,
        warnings=warnings(comparison),
        conclusions=conclusions(comparison),
        settings=different_settings(comparison),
        chart=comparison_chart(comparison),
        dashes=[DASHES[i % len(DASHES)] for i in range(len(comparison.names))],
    )


def write_comparison(comparison: RaceComparison, path: Path) -> Path:
    """Write the comparison as a self-contained HTML file, atomically, and return its path."""
    return write_atomically(path, comparison_page(comparison).encode(errors="replace"), 0o644)


def comparison_chart(comparison: RaceComparison) -> "Chart | None":
    """Draw the learning curves of each optimizer that takes part in all races, with a line for each race.

    Returns None if there are no such optimizers, or the metrics differ.
    """
    from .figure import Chart, Panel

    names = comparison.common_entries[:MAX_PANELS]
    if not names or not comparison.has_same_metric:
        return None
    panels = [Panel(partial(_draw_entry, comparison, name), name, entry=name, **PANEL) for name in names]
    metric = comparison.records[0].plan.metric.name.removeprefix("test ")
    title = f"Validation {metric} during training, in each race"
    return Chart("compared-curves", title, tuple(panels), 3)


def _draw_entry(comparison: RaceComparison, name: str, axes: "Axes") -> None:
    """Draw the median curve of an entry in each race against the share of the training."""
    from .axes import percent_axis
    from .figure import LINESTYLES, tag
    from .palette import colour

    late = []
    for i, (race, record) in enumerate(zip(comparison.names, comparison.records, strict=True)):
        curve = record.curves[name]
        table = scale(record) * np.array(curve.valid_metric, np.float64)
        middle = np.nanmedian(np.where(np.isfinite(table), table, scale(record) * record.plan.chance_level), axis=0)
        share = 100 * np.array(curve.examples) / (max(curve.examples) or 1)
        (line,) = axes.plot(share, middle, color=colour(name), linestyle=LINESTYLES[DASHES[i % len(DASHES)]])
        tag(line, name, f"{name} in {race}: {middle[-1]:.4g}")
        late += middle[len(middle) // 4 :].tolist()
    low, high = min(late), max(late)
    pad = 0.08 * (high - low) or 0.5
    axes.set_ylim(low - pad, high + pad)
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the training")
    percent_axis(axes.yaxis, comparison.records[0].plan.metric.percent)
