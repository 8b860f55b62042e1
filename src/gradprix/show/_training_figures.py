"""Figure of the learning curves. It is a pure function of a race record."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from gradprix.race import RaceRecord
from gradprix.race.record import EntryResult

from ._formatting import scale
from .style import CLEAR, GRID, Style, apply_layout, escape_label, padded, rounded, styles, ticks, translucent

MAX_BANDS = 4
"""Maximum number of entries for which all quantile bands are shown initially."""


def curves(record: RaceRecord) -> go.Figure:
    """Plot the learning curves: validation loss and metric against the number of training examples.

    Lines are medians over the final seeds, bands range from the 10 % to the 90 % quantile. There is no panel of the
    loss if the task is a custom training loop, which reports only a score.
    """
    metric, looks, loop = record.plan.metric, styles(record), record.plan.loop
    titles = ["validation loss"] * (not loop) + [f"validation {escape_label(metric.name.removeprefix('test '))}"]
    fig = make_subplots(len(titles), 1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=0.08)
    ranges: list[list[float]] = [[] for _ in titles]
    for entry in record.ranking:
        curve = record.curves[entry.name]
        losses, values = (np.array(each, np.float64) for each in (curve.valid_loss, curve.valid_metric))
        losses[np.isnan(losses)], values[np.isnan(values)] = np.inf, record.plan.chance_level
        for row, table in enumerate([losses] * (not loop) + [scale(record) * values], start=1):
            ranges[row - 1] += _draw_band(fig, entry, curve.examples, table, looks[entry.name], row)
    if not loop:
        fig.update_yaxes(**late_loss_axis(ranges[0]), row=1)
    fig.update_yaxes(range=padded(ranges[-1]), ticksuffix=" %" if metric.percent else "", row=len(titles))
    fig.update_xaxes(rangemode="tozero", exponentformat="none", separatethousands=True)
    fig.update_xaxes(title="epochs" if loop else "training examples seen", row=len(titles))
    _add_band_buttons(fig, record)
    return apply_layout(
        fig, 800 if len(titles) > 1 else 480, legend={"orientation": "h", "y": 1.05, "yanchor": "bottom", "x": 0}
    )


def _draw_band(
    fig: go.Figure, entry: EntryResult, examples: Sequence[float], table: Any, look: Style, row: int
) -> list[float]:
    """Draw the median and the quantile band of an entry.

    Args:
        fig: figure to draw into.
        entry: entry of the record.
        examples: number of training examples seen at each evaluation, `[epochs]`.
        table: validation loss or metric, `[seeds, epochs]`.
        look: style of the entry.
        row: row of the panel.

    Returns:
        The values that the vertical axis must include: those of the last three quarters of training. With the first
        quarter included, later differences would be too small to see.
    """
    with np.errstate(invalid="ignore"):  # quantiles between finite and infinite losses are NaN: a gap
        low, middle, high = np.quantile(table, (0.1, 0.5, 0.9), axis=0)
    group = {"legendgroup": entry.name, "row": row, "col": 1}
    clear = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    fig.add_scatter(x=examples, y=rounded(high), name="90 %", **clear, **group)
    fig.add_scatter(x=examples, y=rounded(low), name="10 %", fill="tonexty", fillcolor=CLEAR, **clear, **group)
    fig.add_scatter(
        x=examples,
        y=rounded(middle),
        name=look["label"],
        mode="lines+markers" if len(examples) == 1 else "lines",
        line={"color": look["color"], "dash": look["dash"], "width": 2},
        showlegend=row == 1,
        hovertemplate="%{x:,}: %{y:.4~g}",
        **group,
    )
    return [*middle[len(examples) // 4 :].tolist(), float(low[-1]), float(high[-1])]


def _add_band_buttons(fig: go.Figure, record: RaceRecord) -> None:
    """Add buttons that show all quantile bands, only that of the recommended entry, or none.

    At first all bands are shown if the race has at most `MAX_BANDS` entries; more would overlap too much.
    """
    looks, chosen, few = styles(record), record.verdict.recommended, len(record.entries) <= MAX_BANDS
    places = [i for i, trace in enumerate(fig.data) if trace.name == "10 %"]
    names = [fig.data[i].legendgroup for i in places]
    all_fills = [translucent(looks[name]["color"], 0.15) for name in names]
    chosen_fills = [fill if name == chosen else CLEAR for name, fill in zip(names, all_fills, strict=True)]
    choices = {
        f"band of {looks[chosen]['label']}": chosen_fills,
        "all bands": all_fills,
        "no bands": [CLEAR] * len(places),
    }
    for place, fill in zip(places, all_fills if few else chosen_fills, strict=True):
        fig.data[place].fillcolor = fill
    buttons = [
        {"label": label, "method": "restyle", "args": [{"fillcolor": fills}, places]}
        for label, fills in choices.items()
    ]
    menu = {"type": "buttons", "direction": "right", "showactive": True, "active": 1 if few else 0}
    look = {"bgcolor": CLEAR, "bordercolor": GRID, "borderwidth": 1, "font": {"size": 12}, "pad": {"t": 0, "b": 0}}
    fig.update_layout(
        updatemenus=[{**menu, **look, "buttons": buttons, "x": 0, "xanchor": "left", "y": -0.1, "yanchor": "top"}]
    )


def late_loss_axis(values: list[float]) -> dict[str, Any]:
    """Return the plotly properties of an axis for losses late in training: logarithmic if all are positive."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite or min(finite) <= 0:
        return {"range": padded(values)}
    low, high = padded([math.log10(value) for value in finite])
    return {"type": "log", "range": [low, high], **ticks(low, high)}
