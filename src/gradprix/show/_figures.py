"""Figures of a race: each a pure function from its record."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from . import _page
from ._page import Record, diverged, find_pair, ranked, scale, signed, value, word
from ._style import CLEAR, FONT, GRID, INK, MARKS, padded, plain, powers, styles, ticks

FEW = 4
"""Up to so many bands can be seen at once."""
TOP = 60.0
"""The sensitivity axis ends at this many times the limit of near-best losses; what is above it says only "too high"."""


def ranking(record: Record) -> go.Figure:
    """Entries, best mean first: the metric under every seed, and each mean minus the best one.

    The intervals are those of the pairs with the best entry: simultaneous over all pairs of the race.
    """
    entries, looks = ranked(record), styles(record)
    metric = record["plan"]["metric"]
    unit = ", points" if metric["percent"] else ""
    titles = (escape(metric["name"]), f"minus the best mean{unit}")
    fig = make_subplots(1, 2, shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.06)
    low, high = _seed_range(record)
    pad = 0.06 * (high - low) or 1e-6
    worst = low - pad / 2 if metric["higher_is_better"] else high + pad / 2
    for row, entry in enumerate(entries):
        _seeds(fig, record, entry, row, looks[entry["name"]], worst)
        _behind(fig, record, entries[0], entry, row, looks[entry["name"]])
    margin = scale(record) * metric["margin"] * (abs(entries[0]["final"]["mean"]) if metric["relative"] else 1)
    fig.add_vrect(-margin, margin, row=1, col=2, fillcolor="rgba(128,128,128,0.18)", line_width=0, layer="below")
    fig.add_vline(0, row=1, col=2, line={"color": INK, "width": 1})
    fig.update_xaxes(range=[low - pad, high + pad], ticksuffix=" %" if metric["percent"] else "", col=1)
    fig.update_xaxes(nticks=6)
    names = [f"<b>{escape(e['name'])}</b>" if e["leads"] else escape(e["name"]) for e in entries]
    words = ["best mean"] + [word(record, entry["name"], entries[0]["name"]) for entry in entries[1:]]
    fig.update_yaxes(range=[len(entries) - 0.4, -0.6], tickvals=list(range(len(entries))), showgrid=False, ticks="")
    fig.update_yaxes(ticktext=names, col=1)
    fig.update_yaxes(ticktext=words, side="right", showticklabels=True, matches=None, col=2)
    return _finish(fig, 80 + 30 * len(entries), showlegend=False)


def _seeds(fig: go.Figure, record: Record, entry: Record, row: int, look: Record, edge: float) -> None:
    """One entry's values: a faint dot for each seed, a cross at the worse edge for each diverged run, the mean."""
    final, lost, name = entry["final"], diverged(entry), escape(entry["name"])
    values = [scale(record) * number for number in final["values"]]
    kept = [number for number, gone in zip(values, lost, strict=True) if not gone]
    place: dict[str, Any] = {"row": 1, "col": 1}
    dot = {"color": look["color"], "size": 7, "opacity": 0.4}
    fig.add_scatter(
        x=kept,
        y=[row] * len(kept),
        mode="markers",
        marker=dot,
        hovertemplate=f"{name}: %{{x:.4~g}}<extra></extra>",
        **place,
    )
    if any(lost):
        cross = {"color": look["color"], "size": 10, "symbol": "x"}
        text = f"{name}: {sum(lost)} diverged, scored {value(record, record['plan']['baseline'])}<extra></extra>"
        fig.add_scatter(x=[edge], y=[row], mode="markers", marker=cross, name="diverged", hovertemplate=text, **place)
    low, high = (value(record, bound) for bound in final["ci95"])
    bar = {"size": 15, "symbol": "line-ns", "line": {"color": look["color"], "width": 3}}
    text = f"{name}: mean {value(record, final['mean'])}<br>its own 95 % interval: {low} to {high}<extra></extra>"
    mean = scale(record) * final["mean"]
    fig.add_scatter(x=[mean], y=[row], mode="markers", marker=bar, name="mean", hovertemplate=text, **place)


def _behind(fig: go.Figure, record: Record, best: Record, entry: Record, row: int, look: Record) -> None:
    """One entry's mean minus the best one's, in the metric's own direction, with the simultaneous interval."""
    centre, low, high = 0.0, 0.0, 0.0
    if entry is not best:
        pair = find_pair(record, best["name"], entry["name"])
        turn = -1 if record["plan"]["metric"]["higher_is_better"] else 1
        centre = turn * pair["difference"]
        low, high = sorted(turn * bound for bound in pair["ci95"])
    by = scale(record)
    fig.add_scatter(
        x=[by * centre],
        y=[row],
        mode="markers",
        marker={"color": look["color"], "symbol": look["symbol"], "size": 9},
        error_x={"array": [by * (high - centre)], "arrayminus": [by * (centre - low)], "thickness": 2, "width": 4},
        name="difference",
        hovertemplate=f"{escape(entry['name'])}: {signed(record, centre)}<br>"
        f"{signed(record, low)} to {signed(record, high)}<extra></extra>",
        row=1,
        col=2,
    )


def _seed_range(record: Record) -> tuple[float, float]:
    """What the axis of values must hold: all runs that did not diverge, and all means."""
    kept = [entry["final"]["mean"] for entry in record["entries"]]
    for entry in record["entries"]:
        kept += [v for v, gone in zip(entry["final"]["values"], diverged(entry), strict=True) if not gone]
    return scale(record) * min(kept), scale(record) * max(kept)


def pairs(record: Record) -> go.Figure:
    """Every entry against every other: the row's lead over the column and the word for it, by sign as well as fill."""
    names = [entry["name"] for entry in ranked(record)]
    words, places = list(MARKS), list(range(len(names)))
    table = [[_cell(record, row, column) for column in names] for row in names]
    fills = [fill for _, fill in MARKS.values()]
    fig = go.Figure(
        go.Heatmap(
            x=places,
            y=places,
            z=[[words.index(said) if said else None for said, _, _ in row] for row in table],
            zmin=-0.5,
            zmax=len(words) - 0.5,
            colorscale=[[(i + side) / len(words), fill] for i, fill in enumerate(fills) for side in (0, 1)],
            showscale=False,
            xgap=2,
            ygap=2,
            text=[[text for _, text, _ in row] for row in table],
            texttemplate="%{text}",
            textfont={"size": 12, "color": INK},
            customdata=[[hover for _, _, hover in row] for row in table],
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
        )
    )
    axis = {"tickvals": places, "ticktext": [escape(name) for name in names], "showgrid": False, "ticks": ""}
    fig.update_xaxes(side="top", tickangle=-40 if len(names) > 6 else 0, **axis)
    fig.update_yaxes(autorange="reversed", **axis)
    return _finish(fig, 90 + 44 * len(names))


def _cell(record: Record, row: str, column: str) -> tuple[str, str, str]:
    """The word, the text and the hover text of one cell; nothing on the diagonal."""
    if row == column:
        return "", "", ""
    pair, said = find_pair(record, row, column), word(record, row, column)
    turn = 1 if pair["a"] == row else -1
    low, high = (signed(record, bound) for bound in sorted(turn * bound for bound in pair["ci95"]))
    lead = signed(record, turn * pair["difference"])
    hover = f"{escape(row)} against {escape(column)}: {said}<br>lead {lead}, simultaneous interval {low} to {high}"
    hover += f"<br>adjusted p = {pair['p']:.2g}"
    if pair["more_seeds"]:
        hover += f"<br>about {pair['more_seeds']:,} more seeds would settle it"
    return said, f"{MARKS[said][0]}<br>{lead}", hover


def sensitivity(record: Record) -> go.Figure:
    """Validation loss against learning rate, a panel an entry, all panels equally many decades wide."""
    entries, looks = ranked(record), styles(record)
    columns = min(4, len(entries))
    rows = -(-len(entries) // columns)
    titles = [f"<b>{escape(e['name'])}</b> {e['tuned']['lr']:g}, {_page.factor(e['window'])}" for e in entries]
    fig = make_subplots(
        rows,
        columns,
        subplot_titles=titles,
        shared_yaxes=True,
        horizontal_spacing=0.025,
        vertical_spacing=min(0.2, 0.3 / rows),
    )
    low, high = _loss_range(record)
    floor, ceiling = math.log10(low), math.log10(high * 1.25)
    limit = min(record["near_limit"], 10**ceiling)
    spans = {name: _decades([run["lr"] for run in runs]) for name, runs in record["tried"].items()}
    width = max(end - start for start, end in spans.values()) + 0.3
    for number, entry in enumerate(entries):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        _tried(fig, record, entry, looks[entry["name"]], high, place)
        fig.add_hrect(low, limit, fillcolor="rgba(128,128,128,0.16)", line_width=0, layer="below", **place)
        middle = sum(spans[entry["name"]]) / 2
        fig.update_xaxes(range=[middle - width / 2, middle + width / 2], **place)
    edges = [edge for span in spans.values() for edge in span]
    fig.update_xaxes(type="log", **powers(min(edges) - width, max(edges) + width))
    fig.update_yaxes(type="log", range=[floor, ceiling], **ticks(floor, ceiling))
    fig.update_yaxes(title="validation loss", col=1)
    return _finish(fig, 70 + 185 * rows, showlegend=False)


def _tried(fig: go.Figure, record: Record, entry: Record, look: Record, top: float, place: dict[str, int]) -> None:
    """One entry's tuning runs: a line through the first seed's, faint dots for the rest, crosses for diverged ones."""
    runs = record["tried"][entry["name"]]
    kept = [run for run in runs if run["diverged"] is None]
    first = sorted((run for run in kept if run["first"]), key=lambda run: run["lr"])
    lost = sorted({run["lr"] for run in runs if run["diverged"] is not None})
    chosen = [run for run in first if run["lr"] == entry["tuned"]["lr"]]
    hover = f"{escape(entry['name'])} at %{{x:~g}}: %{{y:.3~g}}<extra></extra>"

    def add(runs: Sequence[Record], **how: Any) -> None:
        x, y = [run["lr"] for run in runs], [min(run["loss"], top) for run in runs]
        fig.add_scatter(x=x, y=y, **{"mode": "markers", "hovertemplate": hover, **how}, **place)

    add(first, mode="lines+markers", line={"color": look["color"], "width": 2}, marker={"size": 5})
    add([run for run in kept if not run["first"]], marker={"color": look["color"], "size": 6, "opacity": 0.4})
    ring = {"symbol": "circle-open", "size": 14, "color": look["color"], "line": {"width": 2.5}}
    add(chosen, marker=ring, name="tuned")
    cross = {"symbol": "x", "size": 8, "color": look["color"]}
    gone = f"{escape(entry['name'])} at %{{x:~g}}: diverged<extra></extra>"
    add([{"lr": lr, "loss": top} for lr in lost], marker=cross, name="diverged", hovertemplate=gone)


def _loss_range(record: Record) -> tuple[float, float]:
    losses = [run["loss"] for runs in record["tried"].values() for run in runs if run["diverged"] is None]
    losses = [loss for loss in losses if loss > 0] or [1.0]
    limit = record["near_limit"]
    highest = TOP * limit if math.isfinite(limit) and limit > 0 else max(losses)
    return 0.8 * min(losses), min(1.1 * max(losses), highest)


def _decades(rates: Sequence[float]) -> tuple[float, float]:
    return math.log10(min(rates)), math.log10(max(rates))


def curves(record: Record) -> go.Figure:
    """Validation loss and metric against examples seen: the median over the final seeds, and 10 to 90 % of them."""
    metric, looks = record["plan"]["metric"], styles(record)
    titles = ("validation loss", f"validation {escape(metric['name'].removeprefix('test '))}")
    fig = make_subplots(2, 1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=0.08)
    late: dict[int, list[float]] = {1: [], 2: []}
    for entry in ranked(record):
        curve = record["curves"][entry["name"]]
        losses, values = (np.array(curve[key], float) for key in ("valid_loss", "valid_metric"))
        losses[np.isnan(losses)], values[np.isnan(values)] = np.inf, record["plan"]["baseline"]
        for row, table in ((1, losses), (2, scale(record) * values)):
            late[row] += _band(fig, entry, curve["examples"], table, looks[entry["name"]], row)
    low, high = padded([math.log10(loss) for loss in late[1] if loss > 0])
    fig.update_yaxes(type="log", range=[low, high], **ticks(low, high), row=1)
    fig.update_yaxes(range=padded(late[2]), ticksuffix=" %" if metric["percent"] else "", row=2)
    fig.update_xaxes(rangemode="tozero", exponentformat="none", separatethousands=True)
    fig.update_xaxes(title="training examples seen", row=2)
    _switch(fig, record)
    return _finish(fig, 800, legend={"orientation": "h", "y": 1.05, "yanchor": "bottom", "x": 0})


def _band(fig: go.Figure, entry: Record, examples: list[float], table: Any, look: Record, row: int) -> list[float]:
    """Draw one entry's median and band in one panel, of values `[seeds, epochs]`; return what the panel must show.

    That is the last three quarters: the first steps would leave no room for differences that matter.
    """
    with np.errstate(invalid="ignore"):  # between a finite and an infinite loss there is no quantile: a gap
        low, middle, high = np.quantile(table, (0.1, 0.5, 0.9), axis=0)
    group = {"legendgroup": entry["name"], "row": row, "col": 1}
    clear = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    fig.add_scatter(x=examples, y=plain(high), name="90 %", **clear, **group)
    fig.add_scatter(x=examples, y=plain(low), name="10 %", fill="tonexty", fillcolor=CLEAR, **clear, **group)
    fig.add_scatter(
        x=examples,
        y=plain(middle),
        name=escape(entry["name"]),
        mode="lines+markers" if len(examples) == 1 else "lines",
        line={"color": look["color"], "dash": look["dash"], "width": 2},
        showlegend=row == 1,
        hovertemplate="%{x:,} examples: %{y:.4~g}",
        **group,
    )
    return [*middle[len(examples) // 4 :].tolist(), float(low[-1]), float(high[-1])]


def _switch(fig: go.Figure, record: Record) -> None:
    """Buttons for the bands: of the entry to take, of all, of none. Many bands at once hide each other."""
    looks, chosen, few = styles(record), record["verdict"]["take"], len(record["entries"]) <= FEW
    places = [i for i, trace in enumerate(fig.data) if trace.name == "10 %"]
    names = [fig.data[i].legendgroup for i in places]
    hues = [[int(looks[name]["color"][i : i + 2], 16) for i in (1, 3, 5)] for name in names]
    every = [f"rgba({red},{green},{blue},0.15)" for red, green, blue in hues]
    one = [fill if name == chosen else CLEAR for name, fill in zip(names, every, strict=True)]
    choices = {f"band of {escape(chosen)}": one, "all bands": every, "no bands": [CLEAR] * len(places)}
    for place, fill in zip(places, every if few else one, strict=True):
        fig.data[place].fillcolor = fill
    buttons = [
        {"label": label, "method": "restyle", "args": [{"fillcolor": fills}, places]}
        for label, fills in choices.items()
    ]
    how = {"type": "buttons", "direction": "right", "showactive": True, "active": 1 if few else 0}
    look = {"bgcolor": CLEAR, "bordercolor": GRID, "borderwidth": 1, "font": {"size": 12}, "pad": {"t": 0, "b": 0}}
    fig.update_layout(
        updatemenus=[{**how, **look, "buttons": buttons, "x": 0, "xanchor": "left", "y": -0.1, "yanchor": "top"}]
    )


def _finish(fig: go.Figure, height: int, **layout: Any) -> go.Figure:
    """What all figures have in common: no ground of their own, grey grids, type that fits the page."""
    fig.update_layout(
        template="none",
        height=height,
        margin={"l": 10, "r": 25, "t": 40, "b": 15},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"family": FONT, "size": 13, "color": INK},
        hoverlabel={"align": "left", "font": {"family": FONT, "size": 13}},
        modebar={"bgcolor": CLEAR, "color": "#8a949e", "activecolor": "#0072B2"},
        **layout,
    )
    fig.update_annotations(font={"size": 13, "color": INK})
    axis = {"automargin": True, "gridcolor": GRID, "zeroline": False, "linecolor": GRID}
    for update in (fig.update_xaxes, fig.update_yaxes):
        update(tickfont={"size": 12}, title={"font": {"size": 13}}, **axis)
    return fig
