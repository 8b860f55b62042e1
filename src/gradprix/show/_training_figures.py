"""Figure of the learning curves. It is a pure function of a race record."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gradprix.race import RaceRecord
from gradprix.race.record import EntryResult
from gradprix.text.figures import format_curves_title

from ._formatting import format_value, scale
from ._svg import GREY, SOFT
from .axes import label_ends, label_width, log_ticks, percent_axis
from .figure import Chart, Panel, line_style, tag
from .palette import Style, styles

MAX_BANDS = 4
"""Maximum number of entries for which all quantile bands are shown; otherwise only that of the recommended entry."""
MAX_COLOURED = 5
"""Maximum number of entries with coloured lines: the best leaders. The others are grey until pointed at."""


def curves(record: RaceRecord) -> Chart:
    """Draw the learning curves: validation loss and metric against the number of training examples.

    Lines are medians over the final seeds, bands range from the 10 % to the 90 % quantile. There is no panel of the
    loss if the task is a custom training loop, which reports only a score.
    """
    metric = f"validation {record.plan.metric.name.removeprefix('test ')}"
    right = 14 + label_width(entry.name for entry in record.entries)
    size: dict[str, Any] = {"height": 320, "margins": (56, right, 30, 44)}
    panels = [] if record.plan.loop else [Panel(partial(_draw_curves, record, True), "validation loss", **size)]
    panels.append(Panel(partial(_draw_curves, record, False), metric, **size))
    legend = f"Lines: median of {record.budget.seeds} final runs at the tuned rate. Bands: 10 to 90 % of the runs."
    return Chart("curves", format_curves_title(record), tuple(panels), len(panels), legend)


def coloured_entries(record: RaceRecord) -> list[str]:
    """Return the names of the entries whose lines are coloured: the best leaders, and the recommended entry."""
    leaders = [entry.name for entry in record.ranking if entry.is_leader][:MAX_COLOURED]
    return [*dict.fromkeys([record.verdict.recommended, *leaders])]


def _draw_curves(record: RaceRecord, is_loss: bool, axes: Axes) -> None:
    """Draw the lines and bands of all entries, the most important ones on top, with their names at the right."""
    coloured, looks = coloured_entries(record), styles(entry.name for entry in record.entries)
    order = sorted(record.ranking, key=lambda entry: entry.name in coloured)
    with_bands = [e.name for e in order] if len(order) <= MAX_BANDS else [record.verdict.recommended]
    lines = {e.name: _quantiles(record, e.name, is_loss) for e in order}
    heights = [value for each in lines.values() for value in _late(*each)]
    _set_axes(record, is_loss, heights, axes)
    for entry in order:
        is_quiet = entry.name not in coloured
        _draw_entry(record, entry, lines[entry.name], looks[entry.name], is_quiet, entry.name in with_bands, axes)
    ends = [(float(lines[e.name][1][-1]), e.name) for e in sorted(record.ranking, key=lambda e: e.name not in coloured)]
    shades = {name: looks[name].colour if name in coloured else SOFT for _, name in ends}
    label_ends(axes, [(y, name, shades[name]) for y, name in ends])


def _quantiles(record: RaceRecord, name: str, is_loss: bool) -> tuple[Any, Any, Any]:
    """Return the 10 %, 50 % and 90 % quantiles of an entry over its final seeds, `[epochs]` each."""
    curve = record.curves[name]
    table = np.array(curve.valid_loss if is_loss else curve.valid_metric, np.float64)
    table[np.isnan(table)] = np.inf if is_loss else record.plan.chance_level
    with np.errstate(invalid="ignore"):  # quantiles between finite and infinite losses are NaN: a gap
        low, middle, high = np.quantile(table if is_loss else scale(record) * table, (0.1, 0.5, 0.9), axis=0)
    return low, middle, high


def _late(low: Any, middle: Any, high: Any) -> list[float]:
    """Return the values that the vertical axis must include: those of the last three quarters of training.

    With the first quarter included, later differences would be too small to see.
    """
    return [*middle[len(middle) // 4 :].tolist(), float(low[-1]), float(high[-1])]


def _set_axes(record: RaceRecord, is_loss: bool, heights: Sequence[float], axes: Axes) -> None:
    """Set the scales, ranges and labels of both axes."""
    examples = max((record.curves[entry.name].examples for entry in record.entries), key=len)
    axes.set_xlim(0, max(examples) or 1)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.set_xlabel("epochs" if record.plan.loop else "training examples seen")
    finite = [value for value in heights if math.isfinite(value)] or [0.0, 1.0]
    is_log = is_loss and min(finite) > 0
    low, high = (f([math.log10(v) for v in finite] if is_log else finite) for f in (min, max))
    pad = 0.06 * (high - low) or 0.5
    low, high = low - pad, high + pad
    if is_log:
        axes.set_yscale("log")
        axes.set_ylim(10**low, 10**high)
        log_ticks(axes.yaxis, low, high)
    else:
        axes.set_ylim(low, high)
        percent_axis(axes.yaxis, record.plan.metric.percent and not is_loss)


def _draw_entry(
    record: RaceRecord,
    entry: EntryResult,
    quantiles: tuple[Any, Any, Any],
    look: Style,
    is_quiet: bool,
    has_band: bool,
    axes: Axes,
) -> None:
    """Draw the median of an entry, and its band.

    Args:
        record: record of a race.
        entry: the entry.
        quantiles: the 10 %, 50 % and 90 % quantiles, `[epochs]` each.
        look: style of the entry.
        is_quiet: draw a grey line.
        has_band: draw the band from the 10 % to the 90 % quantile.
        axes: axes to draw into.
    """
    low, middle, high = quantiles
    examples = record.curves[entry.name].examples
    if has_band:
        shade = GREY if is_quiet else look.colour
        tag(axes.fill_between(examples, low, high, color=shade, alpha=0.15, lw=0), entry.name)
    marker = "o" if len(examples) == 1 else ""
    (line,) = axes.plot(examples, middle, marker=marker, label=entry.name, **line_style(look, is_quiet))
    values = " to ".join(format_value(record, end) for end in sorted(entry.final.ci95))
    tag(line, entry.name, f"{entry.name}: {format_value(record, entry.final.mean)} ({values}) on the test examples")
