"""Page of a suite: results combined over tasks, with links to the report of each race."""

from collections.abc import Mapping
from typing import Any

from plotly import graph_objects as go

from gradprix.race import REPORT
from gradprix.utils.wording import format_count, format_list

from ._templates import render
from .style import INK, apply_layout, escape_label, series_style, translucent

Summary = Mapping[str, Any]
SHOWN = 8.0
"""Largest regret, in margins, on the axis of the performance profiles and on the colour scale."""
BANDS = 2
"""Number of entries, the best ones, for which bands are drawn. More bands would overlap too much."""


def regrets(summary: Summary) -> go.Figure:
    """Plot a heat map of the regret, in margins, of each entry (row) on each task (column)."""
    entries, names = summary["entries"], list(summary["tasks"])
    values = [[summary["tasks"][name]["regrets"][entry] for name in names] for entry in entries]
    text = [
        [
            f"<b>{value:.1f}</b>" if entry in summary["tasks"][name]["leads"] else f"{value:.1f}"
            for value, name in zip(row, names, strict=True)
        ]
        for row, entry in zip(values, entries, strict=True)
    ]
    fig = go.Figure(
        go.Heatmap(
            x=[escape_label(name) for name in names],
            y=[escape_label(entry) for entry in entries],
            z=[[min(value, SHOWN) for value in row] for row in values],
            text=text,
            texttemplate="%{text}",
            textfont={"size": 13, "color": INK},
            zmin=0,
            zmax=SHOWN,
            colorscale=[[0, "rgba(0,114,178,0.45)"], [1 / SHOWN, "rgba(0,114,178,0.06)"], [1, "rgba(213,94,0,0.6)"]],
            showscale=False,
            xgap=2,
            ygap=2,
            hovertemplate="%{y} on %{x}: %{text} margins behind the best<extra></extra>",
        )
    )
    fig.update_xaxes(side="top", showgrid=False, ticks="")
    fig.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    return apply_layout(fig, 80 + 40 * len(entries))


def profile(summary: Summary) -> go.Figure:
    """Plot performance profiles: the fraction of tasks on which an entry is at most x margins behind the best."""
    fig, margins = go.Figure(), summary["profile"]["margins"]
    shown = [x for x in margins if x <= SHOWN]
    for i, entry in enumerate(summary["entries"]):
        curve = summary["profile"]["entries"][entry]
        style, group = series_style(i), {"legendgroup": entry}
        if i < BANDS:
            clear = {"mode": "lines", "line": {"width": 0, "shape": "hv"}, "hoverinfo": "skip", "showlegend": False}
            fig.add_scatter(x=shown, y=[100 * y for y in curve["high"][: len(shown)]], **clear, **group)
            low = [100 * y for y in curve["low"][: len(shown)]]
            fill = translucent(style["color"], 0.12)
            fig.add_scatter(x=shown, y=low, fill="tonexty", fillcolor=fill, **clear, **group)
        fig.add_scatter(
            x=shown,
            y=[100 * y for y in curve["share"][: len(shown)]],
            mode="lines",
            name=escape_label(entry),
            line={"color": style["color"], "dash": style["dash"], "width": 2, "shape": "hv"},
            hovertemplate=f"{escape_label(entry)}: at most %{{x}} margins behind on %{{y:.0f}} %<extra></extra>",
            **group,
        )
    fig.update_xaxes(title="margins behind the best of a task", range=[0, SHOWN])
    fig.update_yaxes(title="share of tasks", ticksuffix=" %", range=[0, 103])
    return apply_layout(fig, 440, legend={"x": 1.01, "xanchor": "left", "y": 1})


def suite_page(summary: Summary) -> str:
    """Return the page of a suite as a self-contained HTML document.

    Args:
        summary: contents of `suite.json`. Links to reports are relative: the page must be saved in the parent folder of
            the folders of the races.
    """
    return render(
        "suite.html.jinja",
        summary=summary,
        task_count=format_count(len(summary["tasks"]), "task"),
        rows={name: _format_task(task) for name, task in summary["tasks"].items()},
        figures={"regrets": regrets(summary), "profile": profile(summary)},
        bands=BANDS,
        report_file=REPORT,
    )


def _format_task(task: Mapping[str, Any]) -> list[str]:
    """Format the cells of a task: metric, chance level, best mean, margin, leaders, recommendation, budget, minutes."""
    metric = task["metric"]
    best = max(task["means"].values()) if metric["higher_is_better"] else min(task["means"].values())
    return [
        metric["name"],
        _format_value(metric, task["trivial"]),
        _format_value(metric, best),
        _format_value(metric, task["margin"], sign=False),
        format_list(task["leads"]),
        task["take"],
        f"{task['trials']} + {task['seeds']}",
        f"{task['seconds'] / 60:.1f}",
    ]


def _format_value(metric: Mapping[str, Any], number: float, sign: bool = True) -> str:
    """Format a value of the metric, with a percent sign if the metric is a percentage and `sign` is True."""
    return f"{100 * number:.1f}{' %' * sign}" if metric["percent"] else f"{number:.4g}"
