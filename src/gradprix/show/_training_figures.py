"""How the networks of a race were tuned and trained, as figures: each a pure function from its record."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from . import _page
from ._loss_axes import Losses, late
from ._page import Record, ranked, scale
from .style import CLEAR, GRID, finish, padded, plain, powers, styles

FEW = 4
"""Up to so many bands can be seen at once."""


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
    axis = Losses.of(record)
    spans = {name: _decades([run["lr"] for run in runs]) for name, runs in record["tried"].items()}
    width = max(end - start for start, end in spans.values()) + 0.3
    for number, entry in enumerate(entries):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        _tried(fig, record, entry, looks[entry["name"]], axis, place)
        middle = sum(spans[entry["name"]]) / 2
        fig.update_xaxes(range=[middle - width / 2, middle + width / 2], **place)
    edges = [edge for span in spans.values() for edge in span]
    fig.update_xaxes(type="log", **powers(min(edges) - width, max(edges) + width))
    axis.draw(fig)
    return finish(fig, 70 + 185 * rows, showlegend=False)


def _tried(fig: go.Figure, record: Record, entry: Record, look: Record, axis: Losses, place: dict[str, int]) -> None:
    """One entry's tuning runs: a line through the first seed's, faint dots for the rest, crosses for diverged ones."""
    runs = record["tried"][entry["name"]]
    kept = [run for run in runs if run["diverged"] is None]
    first = sorted((run for run in kept if run["first"]), key=lambda run: run["lr"])
    lost = sorted({run["lr"] for run in runs if run["diverged"] is not None})
    chosen = [run for run in first if run["lr"] == entry["tuned"]["lr"]]
    hover = f"{escape(entry['name'])} at %{{x:~g}}: %{{y:.3~g}}<extra></extra>"

    def add(runs: Sequence[Record], **how: Any) -> None:
        x, y = [run["lr"] for run in runs], [axis.shown(run["loss"]) for run in runs]
        fig.add_scatter(x=x, y=y, **{"mode": "markers", "hovertemplate": hover, **how}, **place)

    add(first, mode="lines+markers", line={"color": look["color"], "width": 2}, marker={"size": 5})
    add([run for run in kept if not run["first"]], marker={"color": look["color"], "size": 6, "opacity": 0.4})
    ring = {"symbol": "circle-open", "size": 14, "color": look["color"], "line": {"width": 2.5}}
    add(chosen, marker=ring, name="tuned")
    cross = {"symbol": "x", "size": 8, "color": look["color"]}
    gone = f"{escape(entry['name'])} at %{{x:~g}}: diverged<extra></extra>"
    add([{"lr": lr, "loss": math.inf} for lr in lost], marker=cross, name="diverged", hovertemplate=gone)


def points(record: Record) -> go.Figure:
    """Validation loss against each value that was tuned: a row an entry, a column a value."""
    entries, looks, names = ranked(record), styles(record), record["plan"]["tune"]
    fig = make_subplots(
        len(entries),
        len(names),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.25 / max(2, len(entries)),
    )
    axis = Losses.of(record)
    for row, entry in enumerate(entries, start=1):
        for column, name in enumerate(names, start=1):
            _against(fig, record, entry, name, looks[entry["name"]], axis, {"row": row, "col": column})
    for column, name in enumerate(names, start=1):
        fig.update_xaxes(title=escape(name), row=len(entries), col=column)
        _axis(fig, [run[name] for runs in record["tried"].values() for run in runs if name in run], column)
    axis.draw(fig)
    for row, entry in enumerate(entries, start=1):
        fig.update_yaxes(title=f"<b>{escape(entry['name'])}</b>", row=row, col=1)
    return finish(fig, 110 + 150 * len(entries), showlegend=False)


def _against(
    fig: go.Figure, record: Record, entry: Record, name: str, look: Record, axis: Losses, place: dict[str, int]
) -> None:
    """One entry's runs on the first tuning seed against one value; crosses at the top for diverged ones."""
    runs = [run for run in record["tried"][entry["name"]] if run["first"] and name in run]
    for kept, symbol in ((True, look["symbol"]), (False, "x")):
        shown = [run for run in runs if (run["diverged"] is None) is kept]
        fig.add_scatter(
            x=[run[name] for run in shown],
            y=[axis.shown(run["loss"] if kept else math.inf) for run in shown],
            mode="markers",
            marker={"color": look["color"], "symbol": symbol, "size": 7},
            hovertemplate=f"{escape(entry['name'])} at {escape(name)} %{{x}}: %{{y:.3~g}}<extra></extra>",
            **place,
        )
    chosen = [run for run in runs if all(run[key] == value for key, value in entry["tuned"].items())]
    ring = {"symbol": "circle-open", "size": 14, "color": look["color"], "line": {"width": 2.5}}
    x, y = [run[name] for run in chosen], [axis.shown(run["loss"]) for run in chosen]
    fig.add_scatter(x=x, y=y, mode="markers", marker=ring, name="tuned", hoverinfo="skip", **place)


def _axis(fig: go.Figure, values: Sequence[Any], column: int) -> None:
    """One axis for a column: in the logarithm where values span decades, by name where they are names."""
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


def curves(record: Record) -> go.Figure:
    """Validation loss and metric against examples seen: the median over the final seeds, and 10 to 90 % of them.

    A loop of one's own has no loss but its score.
    """
    metric, looks, loop = record["plan"]["metric"], styles(record), record["plan"]["loop"]
    titles = ["validation loss"] * (not loop) + [f"validation {escape(metric['name'].removeprefix('test '))}"]
    fig = make_subplots(len(titles), 1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=0.08)
    seen: list[list[float]] = [[] for _ in titles]
    for entry in ranked(record):
        curve = record["curves"][entry["name"]]
        losses, values = (np.array(curve[key], float) for key in ("valid_loss", "valid_metric"))
        losses[np.isnan(losses)], values[np.isnan(values)] = np.inf, record["plan"]["trivial"]
        for row, table in enumerate([losses] * (not loop) + [scale(record) * values], start=1):
            seen[row - 1] += _band(fig, entry, curve["examples"], table, looks[entry["name"]], row)
    if not loop:
        fig.update_yaxes(**late(seen[0]), row=1)
    fig.update_yaxes(range=padded(seen[-1]), ticksuffix=" %" if metric["percent"] else "", row=len(titles))
    fig.update_xaxes(rangemode="tozero", exponentformat="none", separatethousands=True)
    fig.update_xaxes(title="epochs" if loop else "training examples seen", row=len(titles))
    _switch(fig, record)
    return finish(
        fig, 800 if len(titles) > 1 else 480, legend={"orientation": "h", "y": 1.05, "yanchor": "bottom", "x": 0}
    )


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
        hovertemplate="%{x:,}: %{y:.4~g}",
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


def read_sensitivity(record: Record) -> str:
    """What the panels show, and what the numbers above them are."""
    axis = Losses.of(record)
    reseeded = any(not run["first"] for runs in record["tried"].values() for run in runs)
    return (
        f"{axis.name.capitalize()} at the end of each tuning run, against its learning rate. "
        "Above each panel: the tuned rate, and the factor between the largest and the smallest near-best rate. "
        f"The grey zone is near-best: {axis.describe()}. "
        "The wider a curve's stretch in it, the less the rate matters. The ring is the tuned rate; × at the edge is a "
        "run that diverged. "
        + ("The line joins runs on the first tuning seed; pale dots are runs on further seeds. " if reseeded else "")
        + "All panels are equally many decades wide."
    )


def read_points(record: Record) -> str:
    """What the panels show, where several values were tuned."""
    axis = Losses.of(record)
    return (
        f"{axis.name.capitalize()} at the end of each tuning run on the first tuning seed, against each value that was "
        "tuned, the others varying too. The ring is the tuned point; × at the edge is a run that diverged; a panel is "
        f"empty where an entry has no such value. The grey zone is near-best: {axis.describe()}."
    )


def read_curves(record: Record) -> str:
    """What lines and bands are."""
    return (
        f"Lines: the median over the {record['budget']['seeds']} final seeds at the tuned rate. Bands: 10 to 90&nbsp;% "
        "of them. Click a name to hide or show it, double-click to see it alone. The axes fit the last three quarters; "
        "double-click a panel to see all of it. Only the last point counts: before the schedule has ended, "
        "the order is no guide."
    )
