"""Figures of the results of a race. All are pure functions of its record."""

from typing import Any

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from gradprix.race import RaceRecord
from gradprix.race.record import EntryResult

from ._formatting import diverged, format_difference, format_value, reference, scale, verdict_on
from .style import INK, MARKS, Style, apply_layout, escape_label, styles


def ranking(record: RaceRecord) -> go.Figure:
    """Plot the ranking of the entries, with a row for each entry, best mean first.

    The left panel shows the metric of every final seed. The right panel shows the difference of each entry from the
    baseline, or from the entry with the best mean, with a confidence interval. Intervals are simultaneous over all
    comparisons of the race.
    """
    entries, looks, reference_name = record.ranking, styles(record), reference(record)
    metric = record.plan.metric
    unit = ", points" if metric.percent else ""
    name = looks[reference_name]["label"] if record.plan.baseline else "the best mean"
    titles = (escape_label(metric.name), f"minus {name}{unit}")
    fig = make_subplots(1, 2, shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.06)
    low, high = _seed_range(record)
    pad = 0.06 * (high - low) or 1e-6
    worst = low - pad / 2 if metric.higher_is_better else high + pad / 2
    for row, entry in enumerate(entries):
        _draw_seeds(fig, record, entry, row, looks[entry.name], worst)
        _draw_difference(fig, record, reference_name, entry.name, row, looks[entry.name])
    means = {entry.name: entry.final.mean for entry in entries}
    margin = scale(record) * metric.margin * (abs(means[reference_name]) if metric.relative else 1)
    fig.add_vrect(-margin, margin, row=1, col=2, fillcolor="rgba(128,128,128,0.18)", line_width=0, layer="below")
    fig.add_vline(0, row=1, col=2, line={"color": INK, "width": 1})
    fig.update_xaxes(range=[low - pad, high + pad], ticksuffix=" %" if metric.percent else "", col=1)
    fig.update_xaxes(nticks=6)
    labels = [looks[entry.name]["label"] for entry in entries]
    names = [f"<b>{label}</b>" if entry.is_leader else label for label, entry in zip(labels, entries, strict=True)]
    own_label = "baseline" if record.plan.baseline else "best mean"
    words = [own_label if name == reference_name else verdict_on(record, name, reference_name) for name in means]
    fig.update_yaxes(range=[len(entries) - 0.4, -0.6], tickvals=list(range(len(entries))), showgrid=False, ticks="")
    fig.update_yaxes(ticktext=names, col=1)
    fig.update_yaxes(ticktext=words, side="right", showticklabels=True, matches=None, col=2)
    return apply_layout(fig, 80 + 30 * len(entries), showlegend=False)


def _draw_seeds(fig: go.Figure, record: RaceRecord, entry: EntryResult, row: int, look: Style, edge: float) -> None:
    """Draw the final runs of an entry: a faint dot for each seed, a cross if any run diverged, and a bar at the mean.

    Args:
        fig: figure to draw into.
        record: record of a race.
        entry: result of the entry.
        row: vertical position.
        look: style of the entry.
        edge: horizontal position of the cross.
    """
    final, has_diverged, name = entry.final, diverged(entry), look["label"]
    values = [scale(record) * number for number in final.values]
    finite = [number for number, flag in zip(values, has_diverged, strict=True) if not flag]
    place: dict[str, Any] = {"row": 1, "col": 1}
    dot = {"color": look["color"], "size": 7, "opacity": 0.4}
    fig.add_scatter(
        x=finite,
        y=[row] * len(finite),
        mode="markers",
        marker=dot,
        hovertemplate=f"{name}: %{{x:.4~g}}<extra></extra>",
        **place,
    )
    if any(has_diverged):
        cross = {"color": look["color"], "size": 10, "symbol": "x"}
        scored = format_value(record, record.plan.chance_level)
        text = f"{name}: {sum(has_diverged)} diverged, scored {scored}<extra></extra>"
        fig.add_scatter(x=[edge], y=[row], mode="markers", marker=cross, name="diverged", hovertemplate=text, **place)
    low, high = (format_value(record, bound) for bound in final.ci95)
    bar = {"size": 15, "symbol": "line-ns", "line": {"color": look["color"], "width": 3}}
    text = f"{name}: mean {format_value(record, final.mean)}<br>its own 95 % interval: {low} to {high}<extra></extra>"
    mean = scale(record) * final.mean
    fig.add_scatter(x=[mean], y=[row], mode="markers", marker=bar, name="mean", hovertemplate=text, **place)


def _draw_difference(fig: go.Figure, record: RaceRecord, reference_name: str, name: str, row: int, look: Style) -> None:
    """Draw the difference of an entry's mean from that of the reference entry, with its simultaneous interval."""
    centre, low, high = 0.0, 0.0, 0.0
    if name != reference_name:
        pair = record.pair(reference_name, name)
        turn = 1 if record.plan.metric.higher_is_better == (pair.a == name) else -1
        centre = turn * pair.difference
        low, high = sorted(turn * bound for bound in pair.ci95)
    unit = scale(record)
    fig.add_scatter(
        x=[unit * centre],
        y=[row],
        mode="markers",
        marker={"color": look["color"], "symbol": look["symbol"], "size": 9},
        error_x={
            "array": [unit * (high - centre)],
            "arrayminus": [unit * (centre - low)],
            "thickness": 2,
            "width": 4,
        },
        name="difference",
        hovertemplate=f"{look['label']}: {format_difference(record, centre)}<br>"
        f"{format_difference(record, low)} to {format_difference(record, high)}<extra></extra>",
        row=1,
        col=2,
    )


def _seed_range(record: RaceRecord) -> tuple[float, float]:
    """Return the smallest and the largest of all means and of all runs that did not diverge, in displayed units."""
    values = [entry.final.mean for entry in record.entries]
    for entry in record.entries:
        values += [v for v, flag in zip(entry.final.values, diverged(entry), strict=True) if not flag]
    return scale(record) * min(values), scale(record) * max(values)


def pairs(record: RaceRecord) -> go.Figure:
    """Plot the matrix of comparisons: each cell shows the difference of its row from its column, and the verdict."""
    looks, names = styles(record), [entry.name for entry in record.ranking]
    words, places = list(MARKS), list(range(len(names)))
    table = [[_cell(record, row, column) for column in names] for row in names]
    fills = [fill for _, fill in MARKS.values()]
    fig = go.Figure(
        go.Heatmap(
            x=places,
            y=places,
            z=[[words.index(verdict) if verdict else None for verdict, _, _ in row] for row in table],
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
    axis = {"tickvals": places, "ticktext": [looks[name]["label"] for name in names], "showgrid": False, "ticks": ""}
    fig.update_xaxes(side="top", tickangle=-40 if len(names) > 6 else 0, **axis)
    fig.update_yaxes(autorange="reversed", **axis)
    return apply_layout(fig, 90 + 44 * len(names))


def _cell(record: RaceRecord, row: str, column: str) -> tuple[str, str, str]:
    """Return the verdict, the text and the hover text of a cell of the matrix; empty strings on the diagonal."""
    if row == column:
        return "", "", ""
    pair, verdict = record.pair(row, column), verdict_on(record, row, column)
    turn = 1 if pair.a == row else -1
    low, high = (format_difference(record, bound) for bound in sorted(turn * bound for bound in pair.ci95))
    lead = format_difference(record, turn * pair.difference)
    hover = f"{escape_label(row)} against {escape_label(column)}: {verdict}"
    hover += f"<br>lead {lead}, simultaneous interval {low} to {high}"
    hover += f"<br>adjusted p = {pair.p:.2g}"
    if pair.more_seeds:
        hover += f"<br>about {pair.more_seeds:,} more seeds would make it conclusive"
    return verdict, f"{MARKS[verdict][0]}<br>{lead}", hover
