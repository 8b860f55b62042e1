"""Figures of tuning and training: pure functions of a race record."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from gradprix.race import RaceRecord
from gradprix.race.record import EntryResult
from gradprix.race.run_records import TuningRun

from ._formatting import format_factor, scale
from ._loss_axes import LossAxis, late_loss_axis
from .style import CLEAR, GRID, Style, apply_layout, escape_label, padded, powers, rounded, styles

FEW = 4
"""Maximum number of entries for which all quantile bands are shown initially."""


def sensitivity(record: RaceRecord) -> go.Figure:
    """Plot validation loss against learning rate, one panel per entry, all spanning the same number of decades."""
    entries, looks = record.ranking, styles(record)
    columns = min(4, len(entries))
    rows = -(-len(entries) // columns)
    titles = [
        f"<b>{looks[e.name]['label']}</b> {e.tuned['lr']:g}, {format_factor(e.tolerance_decades)}" for e in entries
    ]
    fig = make_subplots(
        rows,
        columns,
        subplot_titles=titles,
        shared_yaxes=True,
        horizontal_spacing=0.025,
        vertical_spacing=min(0.2, 0.3 / rows),
    )
    axis = LossAxis.from_record(record)
    spans = {name: _decades([run.learning_rate for run in runs]) for name, runs in record.tuning_runs.items()}
    width = max(end - start for start, end in spans.values()) + 0.3
    for number, entry in enumerate(entries):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        _draw_tuning(fig, record, entry, looks[entry.name], axis, place)
        middle = sum(spans[entry.name]) / 2
        fig.update_xaxes(range=[middle - width / 2, middle + width / 2], **place)
    edges = [edge for span in spans.values() for edge in span]
    fig.update_xaxes(type="log", **powers(min(edges) - width, max(edges) + width))
    axis.draw(fig)
    return apply_layout(fig, 70 + 185 * rows, showlegend=False)


def _draw_tuning(
    fig: go.Figure, record: RaceRecord, entry: EntryResult, look: Style, axis: LossAxis, place: dict[str, int]
) -> None:
    """Draw an entry's tuning runs: a line for the first seed, faint dots for further seeds, crosses if diverged."""
    runs = record.tuning_runs[entry.name]
    converged = [run for run in runs if run.diverged is None]
    first = sorted((run for run in converged if run.first), key=lambda run: run.learning_rate)
    diverged = {run.learning_rate: run for run in runs if run.diverged is not None}
    chosen = [run for run in first if run.learning_rate == entry.tuned["lr"]]
    hover = f"{look['label']} at %{{x:~g}}: %{{y:.3~g}}<extra></extra>"

    def add(runs: Sequence[TuningRun], loss: float | None = None, **style: Any) -> None:
        y = [axis.position(run.loss if loss is None else loss) for run in runs]
        fig.add_scatter(
            x=[run.learning_rate for run in runs], y=y, **{"mode": "markers", "hovertemplate": hover, **style}, **place
        )

    add(first, mode="lines+markers", line={"color": look["color"], "width": 2}, marker={"size": 5})
    add([run for run in converged if not run.first], marker={"color": look["color"], "size": 6, "opacity": 0.4})
    ring = {"symbol": "circle-open", "size": 14, "color": look["color"], "line": {"width": 2.5}}
    add(chosen, marker=ring, name="tuned")
    cross = {"symbol": "x", "size": 8, "color": look["color"]}
    text = f"{look['label']} at %{{x:~g}}: diverged<extra></extra>"
    add(
        [diverged[lr] for lr in sorted(diverged)],
        loss=math.inf,
        marker=cross,
        name="diverged",
        hovertemplate=text,
    )


def points(record: RaceRecord) -> go.Figure:
    """Plot validation loss against each tuned hyperparameter: one row per entry, one column per hyperparameter."""
    entries, looks, names = record.ranking, styles(record), record.plan.tune
    fig = make_subplots(
        len(entries),
        len(names),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.25 / max(2, len(entries)),
    )
    axis = LossAxis.from_record(record)
    for row, entry in enumerate(entries, start=1):
        for column, name in enumerate(names, start=1):
            _draw_hyperparameter(fig, record, entry, name, looks[entry.name], axis, {"row": row, "col": column})
    for column, name in enumerate(names, start=1):
        fig.update_xaxes(title=escape_label(name), row=len(entries), col=column)
        _axis(
            fig, [run.point[name] for runs in record.tuning_runs.values() for run in runs if name in run.point], column
        )
    axis.draw(fig)
    for row, entry in enumerate(entries, start=1):
        fig.update_yaxes(title=f"<b>{looks[entry.name]['label']}</b>", row=row, col=1)
    return apply_layout(fig, 110 + 150 * len(entries), showlegend=False)


def _draw_hyperparameter(
    fig: go.Figure,
    record: RaceRecord,
    entry: EntryResult,
    name: str,
    look: Style,
    axis: LossAxis,
    place: dict[str, int],
) -> None:
    """Draw an entry's runs on the first tuning seed against one hyperparameter, with crosses for diverged runs."""
    runs = [run for run in record.tuning_runs[entry.name] if run.first and name in run.point]
    for finite, symbol in ((True, look["symbol"]), (False, "x")):
        selected = [run for run in runs if (run.diverged is None) is finite]
        fig.add_scatter(
            x=[run.point[name] for run in selected],
            y=[axis.position(run.loss if finite else math.inf) for run in selected],
            mode="markers",
            marker={"color": look["color"], "symbol": symbol, "size": 7},
            hovertemplate=f"{look['label']} at {escape_label(name)} %{{x}}: %{{y:.3~g}}<extra></extra>",
            **place,
        )
    chosen = [run for run in runs if run.point == entry.tuned]
    ring = {"symbol": "circle-open", "size": 14, "color": look["color"], "line": {"width": 2.5}}
    x, y = [run.point[name] for run in chosen], [axis.position(run.loss) for run in chosen]
    fig.add_scatter(x=x, y=y, mode="markers", marker=ring, name="tuned", hoverinfo="skip", **place)


def _axis(fig: go.Figure, values: Sequence[Any], column: int) -> None:
    """Set the x axis of a column: logarithmic if values span decades, categorical if they are strings."""
    if any(isinstance(value, str) for value in values):
        fig.update_xaxes(type="category", categoryorder="array", categoryarray=sorted(set(values)), col=column)
    elif min(values) > 0 and max(values) > 20 * min(values):
        low, high = math.log10(min(values)), math.log10(max(values))
        fig.update_xaxes(type="log", range=[low - 0.15, high + 0.15], **powers(low, high), col=column)
    else:
        pad = 0.05 * (max(values) - min(values)) or 0.5
        fig.update_xaxes(range=[min(values) - pad, max(values) + pad], col=column)


def _decades(rates: Sequence[float]) -> tuple[float, float]:
    return math.log10(min(rates)), math.log10(max(rates))


def curves(record: RaceRecord) -> go.Figure:
    """Plot validation loss and metric against examples seen: median and 10–90 % band over the final seeds.

    A custom training loop reports a score only, so it has no loss panel.
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
    """Draw an entry's median and quantile band, and return the values that the y axis must include.

    The axis covers the last three quarters of training: with the first steps included, later differences would be
    too small to see.

    Args:
        fig: figure to draw into.
        entry: entry of the record.
        examples: training examples seen, `[epochs]`.
        table: validation values, `[seeds, epochs]`.
        look: colour and dash.
        row: row of the panel.
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
    """Add buttons that show the band of the recommended entry, all bands, or none; many bands overlap."""
    looks, chosen, few = styles(record), record.verdict.recommended, len(record.entries) <= FEW
    places = [i for i, trace in enumerate(fig.data) if trace.name == "10 %"]
    names = [fig.data[i].legendgroup for i in places]
    hues = [[int(looks[name]["color"][i : i + 2], 16) for i in (1, 3, 5)] for name in names]
    all_fills = [f"rgba({red},{green},{blue},0.15)" for red, green, blue in hues]
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
