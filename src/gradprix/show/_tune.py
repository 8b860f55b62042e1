"""Presentation of a tuned optimizer: terminal output, figure of the learning rates, and HTML page."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from plotly import graph_objects as go
from rich.console import Group, RenderableType
from rich.text import Text

from gradprix.race import TUNE_PAGE, TunePlan, TuneRecord, TuneResult
from gradprix.race.run_records import TuningRun
from gradprix.text.answer import format_code
from gradprix.text.tuning import format_protocol, format_tuning
from gradprix.text.units import format_duration, format_points, format_value
from gradprix.utils.files import write_atomically

from ._metric_axis import ZONE
from ._templates import render
from .plans import describe_run, format_range
from .style import COLOURS, apply_layout, escape_label, padded, ticks
from .tables import make_table

SHOWN = 0.9
"""Fraction of the response curve's height that is shown. Its worst part is distorted by the clipping of scores."""


def tune_plan(plan: TunePlan, seconds: float | None, where: str, at_least: bool = False) -> RenderableType:
    """Summarize a plan for tuning before it runs; see `summarize_plan`."""
    ranges = ", ".join(format_range(name, axis) for name, axis in plan.description["entries"][0]["space"].items())
    settings = "the tuned settings" if plan.default is None else "the tuned and the default settings"
    lines = [
        f"{plan.task.name}: {plan.task.about}",
        f"Every run: {describe_run(plan)}.",
        f"{plan.entry.name}: {plan.trials} tuning trials ({ranges}), then {plan.seeds} held-out seeds at {settings}: "
        f"{plan.runs:,} training runs.",
    ]
    if seconds is not None:
        lines.append(f"Takes {'more than' if at_least else 'about'} {format_duration(seconds)} on {where}.")
    return Group(*map(Text, lines))


def tune_answer(result: TuneResult) -> RenderableType:
    """Return the answer for the terminal, with a table of the tried learning rates."""
    record = result.record
    where = f"  Page: {result.folder / TUNE_PAGE}" if result.folder else ""
    last = f"{format_protocol(record)}, {format_duration(record.seconds)}.{where}"
    lines = [*format_tuning(record), f"To use it: {format_code(record.best, record.tuned)}", last]
    return Group(*map(Text, lines), Text(), _learning_rates(record))


def _learning_rates(record: TuneRecord) -> RenderableType:
    """Return the table of the tried learning rates and their validation metric.

    Learning rates within the tolerance are bold. The effect of the seed is subtracted from each metric, because
    learning rates ran on different seeds.
    """
    metric, tolerance = record.plan.metric, record.tolerance
    table = make_table(
        "learning rate", f"validation {_plain_name(record)}, average seed", "seeds", "diverged", right=(0, 1, 2, 3)
    )
    for rate in sorted({run.learning_rate for run in record.runs}):
        runs = [run for run in record.runs if run.learning_rate == rate]
        scores = [record.adjusted_metric(run) for run in runs if run.diverged is None]
        is_near = tolerance is not None and tolerance[0] <= rate <= tolerance[1]
        score = format_value(metric, float(np.mean(scores))) if scores else "-"
        table.add_row(
            Text(f"{rate:g}", "bold" if is_near else ""),
            Text(score, "bold" if is_near else ""),
            str(len({run.seed for run in runs})),
            str(len(runs) - len(scores)),
        )
    return table


def tune_page(result: TuneResult) -> str:
    """Return the page about a tuned optimizer as a self-contained HTML document."""
    record = result.record
    settings = {"tuned": record.final} | ({"default": record.default.final} if record.default else {})
    return render(
        "tune.html.jinja",
        record=record,
        answer=format_tuning(record),
        protocol=format_protocol(record),
        margin=format_points(record.plan.metric, record.margin),
        validation=f"validation {_plain_name(record)}",
        finals={
            name: {
                "mean": format_value(record.plan.metric, final.mean),
                "interval": format_value(record.plan.metric, *final.ci95),
                "diverged": final.diverged,
                "point": record.default.settings if name == "default" and record.default else record.tuned,
            }
            for name, final in settings.items()
        },
        figure=learning_rates(record),
        folder=None if result.folder is None else str(result.folder),
    )


def write_tune_page(result: TuneResult) -> Path | None:
    """Write the page about a tuned optimizer into the folder of the result, atomically.

    Returns:
        Path of the page, or None if the result was not saved in a folder.
    """
    if result.folder is None:
        return None
    return write_atomically(result.folder / TUNE_PAGE, tune_page(result).encode(errors="replace"), 0o644)


def learning_rates(record: TuneRecord) -> go.Figure:
    """Plot the validation metric against the learning rate.

    The figure shows the tuning runs without the effects of their seeds, the response curve, the learning-rate
    tolerance, and the tuned and the default learning rate. Runs with a metric that is worse than the vertical axis
    shows, and diverged runs, are drawn at its lower end. The curve ends at the learning rates of such runs, because it
    is fitted to clipped scores there.
    """
    fig = go.Figure()
    best, worst = _metric_range(record)
    beyond = _draw_runs(fig, record, worst)
    if record.curve is not None:
        low = max((rate for rate in beyond if rate < record.learning_rate), default=0.0)
        high = min((rate for rate in beyond if rate > record.learning_rate), default=math.inf)
        points = zip(record.curve.learning_rates, record.curve.metrics, strict=True)
        x, y = zip(*((rate, _unit(record) * value) for rate, value in points if low <= rate <= high), strict=True)
        line = {"color": COLOURS[0], "width": 2}
        fig.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip")
    if record.tolerance is not None:
        fig.add_vrect(*record.tolerance, fillcolor=ZONE, line_width=0, layer="below")
    _draw_rate(fig, "tuned", record.learning_rate, "solid")
    if record.default is not None and record.default.settings != record.tuned:
        _draw_rate(fig, "default", float(record.default.settings["lr"]), "dash")  # type: ignore[arg-type]
    rates = [math.log10(run.learning_rate) for run in record.runs]
    fig.update_xaxes(title="learning rate", type="log", range=padded(rates), **ticks(min(rates), max(rates)))
    title, suffix = escape_label(f"validation {_plain_name(record)}"), " %" if record.plan.metric.percent else ""
    fig.update_yaxes(title=title, range=padded(sorted((best, worst))), ticksuffix=suffix)
    return apply_layout(fig, 440, showlegend=False)


def _metric_range(record: TuneRecord) -> tuple[float, float]:
    """Return the best and the worst value of the metric that the vertical axis shows, in displayed units."""
    pick, unit = (max if record.plan.metric.higher_is_better else min), _unit(record)
    scores = [record.adjusted_metric(run) for run in record.runs if run.diverged is None]
    if record.curve is None or not scores:
        return unit * record.plan.chance_level, unit * record.plan.chance_level
    metrics = record.curve.metrics
    peak, bottom = pick(metrics), min(metrics) if pick is max else max(metrics)
    return unit * pick(peak, *scores), unit * (peak + SHOWN * (bottom - peak))


def _draw_runs(fig: go.Figure, record: TuneRecord, worst: float) -> set[float]:
    """Draw the tuning runs.

    Runs within the axis are dots. Runs beyond its worse end are triangles at this end, and diverged runs are crosses
    there.

    Args:
        fig: figure to draw into.
        record: record of the tuning.
        worst: worse end of the axis, in displayed units.

    Returns:
        The learning rates of which every run is drawn at the worse end.
    """
    unit, is_higher_better = _unit(record), record.plan.metric.higher_is_better
    trained = [run for run in record.runs if run.diverged is None]
    heights = [unit * record.adjusted_metric(run) for run in trained]
    inside = [run for run, y in zip(trained, heights, strict=True) if (y > worst) == is_higher_better or y == worst]
    beyond = [run for run in trained if run not in inside]
    diverged = [run for run in record.runs if run.diverged is not None]
    styles: list[tuple[list[TuningRun], dict[str, Any]]] = [
        (inside, {"size": 7, "opacity": 0.6}),
        (beyond, {"size": 8, "symbol": "triangle-down" if is_higher_better else "triangle-up"}),
        (diverged, {"size": 9, "symbol": "x"}),
    ]
    for runs, style in styles:
        fig.add_scatter(
            x=[run.learning_rate for run in runs],
            y=[unit * record.adjusted_metric(run) if run in inside else worst for run in runs],
            mode="markers",
            marker={"color": COLOURS[0], **style},
            text=["diverged" if run.diverged is not None else f"{unit * run.metric:.4g}" for run in runs],
            hovertemplate="%{x:~g}: %{text}<extra></extra>",
        )
    return {run.learning_rate for run in (*beyond, *diverged)} - {run.learning_rate for run in inside}


def _draw_rate(fig: go.Figure, name: str, rate: float, dash: str) -> None:
    """Draw a vertical line at a learning rate, and label it above the plot.

    Args:
        fig: figure to draw into.
        name: text of the label.
        rate: learning rate.
        dash: dash style of the line.
    """
    fig.add_vline(rate, line={"color": COLOURS[1], "width": 2, "dash": dash})
    # On a logarithmic axis, plotly places shapes by the value and annotations by its logarithm.
    place = {"x": math.log10(rate), "xref": "x", "y": 1, "yref": "paper", "yanchor": "bottom"}
    fig.add_annotation(text=f"{name}: {rate:g}", showarrow=False, **place)


def _unit(record: TuneRecord) -> float:
    return 100.0 if record.plan.metric.percent else 1.0


def _plain_name(record: TuneRecord) -> str:
    return record.plan.metric.name.removeprefix("test ")
