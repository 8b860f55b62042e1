"""Figures of tuning: the validation metric against tuned hyperparameters. All are pure functions of a race record."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from gradprix.race import RaceRecord
from gradprix.race.record import EntryResult
from gradprix.race.response_curves import response_curves
from gradprix.race.run_records import TuningRun
from gradprix.tuning.response_curve import ResponseCurve

from ._formatting import format_factor, margin, scale
from ._metric_axis import MetricAxis, Place
from .style import Style, apply_layout, band, escape_label, powers, rounded, styles, translucent

Line = list[tuple[float, float]]


def sensitivity(record: RaceRecord) -> go.Figure:
    """Plot the validation metric against the learning rate, with a panel for each entry that tunes it.

    All panels have the same width in decades. Dots are tuning runs, the line is the response curve, the vertical band
    is the learning-rate tolerance, and the horizontal band contains the values within a margin of the entry's best.
    """
    entries, looks = [entry for entry in record.ranking if "lr" in entry.tuned], styles(record)
    columns = min(4, len(entries))
    rows = -(-len(entries) // columns)
    fig = make_subplots(
        rows,
        columns,
        subplot_titles=[_title(entry, looks[entry.name]) for entry in entries],
        shared_yaxes=True,
        horizontal_spacing=0.025,
        vertical_spacing=min(0.2, 0.3 / rows),
    )
    curves = response_curves(record.tuning_runs, record.plan.metric.higher_is_better, margin(record))
    axis = MetricAxis.from_record(record, {e.name: _runs_near(record, e.name, curves[e.name]) for e in entries})
    spans = {e.name: _decades([run.learning_rate for run in record.tuning_runs[e.name]]) for e in entries}
    width = max(end - start for start, end in spans.values()) + 0.3
    shapes: list[dict[str, Any]] = []
    for number, entry in enumerate(entries):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        _draw_runs(fig, record, entry.name, "lr", looks[entry.name], axis, place)
        if (curve := curves[entry.name]) is not None:
            shapes += _draw_curve(fig, record, entry, curve, looks[entry.name], axis, place)
        middle = sum(spans[entry.name]) / 2
        fig.update_xaxes(range=[middle - width / 2, middle + width / 2], **place)
    edges = [edge for span in spans.values() for edge in span]
    fig.update_xaxes(type="log", **powers(min(edges) - width, max(edges) + width))
    axis.draw(fig)
    return apply_layout(fig, 70 + 185 * rows, showlegend=False, shapes=shapes)


def _title(entry: EntryResult, look: Style) -> str:
    """Format the title of a panel: entry, tuned learning rate, and learning-rate tolerance."""
    return f"<b>{look['label']}</b> {entry.tuned['lr']:g}, {format_factor(entry.tolerance_decades)}"


def _runs_near(record: RaceRecord, name: str, curve: ResponseCurve | None) -> list[TuningRun]:
    """Return the runs of an entry at near-optimal learning rates: within a margin of the best of its response curve.

    Returns an empty list if there is no curve. Diverged runs are left out.
    """
    if curve is None:
        return []
    limit = float(curve.metrics.min()) + margin(record)
    return [run for run in record.tuning_runs[name] if run.is_scored and curve(run.learning_rate) <= limit]


def _draw_curve(
    fig: go.Figure,
    record: RaceRecord,
    entry: EntryResult,
    curve: ResponseCurve,
    look: Style,
    axis: MetricAxis,
    place: Place,
) -> list[dict[str, Any]]:
    """Draw an entry's response curve and tuned learning rate.

    Returns:
        The shapes of its tolerance, and of the band within a margin of its best.
    """
    sign, step = (-1 if record.plan.metric.higher_is_better else 1), margin(record)
    unit, rate = scale(record) * sign, float(entry.tuned["lr"])  # type: ignore[arg-type]
    costs: dict[float, list[float]] = {}
    for run in record.tuning_runs[entry.name]:
        costs.setdefault(run.learning_rate, []).append(sign * run.metric if run.is_scored else math.inf)
    smooth, outer = _curve_lines(curve, {each: fmean(costs[each]) for each in sorted(costs)}, step)
    hover = f"{look['label']} at %{{x:.3~g}}, smoothed: %{{y:.4~g}}<extra></extra>"
    for line, width, name in ((smooth, 2, "curve"), (outer, 1, "means")):
        fig.add_scatter(
            x=rounded(x for x, _ in line),
            y=rounded(unit * y for _, y in line),
            mode="lines",
            line={"color": look["color"], "width": width},
            name=name,
            **({"hovertemplate": hover} if name == "curve" else {"hoverinfo": "skip"}),
            **place,
        )
    ring = {"symbol": "circle-open", "size": 13, "color": look["color"], "line": {"width": 2.5}}
    y = [axis.clip(unit * curve(rate))]
    fig.add_scatter(x=[rate], y=y, mode="markers", marker=ring, name="tuned", hovertemplate=hover, **place)
    shapes = axis.zone(fig, unit * (float(curve.metrics.min()) + step), place)
    if entry.tolerance is not None:
        shapes.append(band(fig, place, translucent(look["color"], 0.15), x=entry.tolerance))
    return shapes


def _curve_lines(curve: ResponseCurve, means: Mapping[float, float], step: float) -> tuple[Line, Line]:
    """Return the lines to draw for a response curve.

    Bad scores are clipped when the curve is fitted, so that it is flat far from the optimum. Therefore the curve is
    drawn only near the optimum: on each side, up to the last learning rate whose runs are within a margin of the best
    or at most two margins worse than the curve. Further out, lines connect the means of the runs.

    Args:
        curve: response curve of an entry.
        means: mean of the runs at each learning rate, in ascending order of learning rates; smaller is better.
        step: the margin.

    Returns:
        The curve near the optimum, and the lines further out, both as (learning rate, metric). In the latter, a point
        of NaN separates the left side from the right side.
    """
    optimum, limit = 10 ** float(curve.positions[curve.metrics.argmin()]), float(curve.metrics.min()) + step
    fitted = [rate for rate in means if curve(rate) <= limit or means[rate] <= curve(rate) + 2 * step]
    low, high = min([optimum, *fitted]), max([optimum, *fitted])
    within = (low, *(10**curve.positions).tolist(), high)
    smooth = [(rate, curve(rate)) for rate in within if low <= rate <= high]
    left = [(rate, means[rate]) for rate in means if rate < low]
    right = [(rate, means[rate]) for rate in means if rate > high]
    outer = [*left, (low, curve(low)), (math.nan, math.nan), (high, curve(high)), *right]
    return smooth, outer


def _draw_runs(
    fig: go.Figure, record: RaceRecord, name: str, hyperparameter: str, look: Style, axis: MetricAxis, place: Place
) -> None:
    """Draw the tuning runs of an entry in a panel.

    Runs within the axis are dots. Runs beyond its worse end are triangles at this end, and diverged runs are crosses
    there.

    Args:
        fig: figure to draw into.
        record: record of a race.
        name: name of the entry.
        hyperparameter: name of the hyperparameter on the horizontal axis. Runs without it are left out.
        look: style of the entry.
        axis: vertical axis.
        place: row and column of the panel.
    """
    runs = [run for run in record.tuning_runs[name] if hyperparameter in run.point]
    beyond = "triangle-down" if axis.best > axis.worst else "triangle-up"
    label = f"{look['label']} at {escape_label(hyperparameter) + ' ' if hyperparameter != 'lr' else ''}%{{x}}"
    scored, diverged = ([run for run in runs if run.is_scored is flag] for flag in (True, False))
    values = [scale(record) * run.metric for run in scored]
    symbols = [beyond if axis.is_beyond(value) else "circle" for value in values]
    fig.add_scatter(
        x=[run.point[hyperparameter] for run in scored],
        y=rounded(map(axis.clip, values)),
        customdata=[[value, run.seed] for value, run in zip(rounded(values), scored, strict=True)],
        mode="markers",
        marker={"color": look["color"], "symbol": symbols, "size": 7, "opacity": 0.45},
        name="runs",
        hovertemplate=f"{label}: %{{customdata[0]:.4~g}}, seed %{{customdata[1]}}<extra></extra>",
        **place,
    )
    fig.add_scatter(
        x=[run.point[hyperparameter] for run in diverged],
        y=rounded([axis.worst] * len(diverged)),
        mode="markers",
        marker={"color": look["color"], "symbol": "x", "size": 8},
        name="diverged",
        hovertemplate=f"{label}: diverged<extra></extra>",
        **place,
    )


def points(record: RaceRecord) -> go.Figure:
    """Plot the validation metric against every tuned hyperparameter.

    There is a row for each entry and a column for each hyperparameter.
    """
    entries, looks, names = record.ranking, styles(record), record.plan.tune
    fig = make_subplots(
        len(entries),
        len(names),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.25 / max(2, len(entries)),
    )
    tuned = {e.name: [r for r in record.tuning_runs[e.name] if r.point == e.tuned and r.is_scored] for e in entries}
    axis = MetricAxis.from_record(record, tuned)
    shapes: list[dict[str, Any]] = []
    for row, entry in enumerate(entries, start=1):
        for column, name in enumerate(names, start=1):
            place = {"row": row, "col": column}
            _draw_runs(fig, record, entry.name, name, looks[entry.name], axis, place)
            if tuned[entry.name] and name in entry.tuned:
                shapes += _draw_tuned(fig, record, entry.tuned[name], tuned[entry.name], looks[entry.name], axis, place)
    for column, name in enumerate(names, start=1):
        fig.update_xaxes(title=escape_label(name), row=len(entries), col=column)
        _axis(
            fig, [run.point[name] for runs in record.tuning_runs.values() for run in runs if name in run.point], column
        )
    axis.draw(fig)
    for row, entry in enumerate(entries, start=1):
        fig.update_yaxes(title=f"<b>{looks[entry.name]['label']}</b>", row=row, col=1)
    return apply_layout(fig, 110 + 150 * len(entries), showlegend=False, shapes=shapes)


def _draw_tuned(
    fig: go.Figure, record: RaceRecord, x: Any, runs: Sequence[TuningRun], look: Style, axis: MetricAxis, place: Place
) -> list[dict[str, Any]]:
    """Draw a ring at the mean of the runs with the tuned values; return the shape of the band within a margin of it."""
    mean = fmean(run.metric for run in runs)
    worse = -1 if record.plan.metric.higher_is_better else 1
    ring = {"symbol": "circle-open", "size": 14, "color": look["color"], "line": {"width": 2.5}}
    y = [axis.clip(scale(record) * mean)]
    fig.add_scatter(x=[x], y=y, mode="markers", marker=ring, name="tuned", hoverinfo="skip", **place)
    return axis.zone(fig, scale(record) * (mean + worse * margin(record)), place)


def _axis(fig: go.Figure, values: Sequence[Any], column: int) -> None:
    """Set the type and the range of the horizontal axis of a column of panels.

    The axis is categorical if any value is a string, and logarithmic if positive values span more than a factor of 20.
    """
    if any(isinstance(value, str) for value in values):
        fig.update_xaxes(type="category", categoryorder="array", categoryarray=sorted(set(values)), col=column)
    elif min(values) > 0 and max(values) > 20 * min(values):
        low, high = math.log10(min(values)), math.log10(max(values))
        fig.update_xaxes(type="log", range=[low - 0.15, high + 0.15], **powers(low, high), col=column)
    else:
        pad = 0.05 * (max(values) - min(values)) or 0.5
        fig.update_xaxes(range=[min(values) - pad, max(values) + pad], col=column)


def _decades(rates: Sequence[float]) -> tuple[float, float]:
    """Return the decimal logarithms of the lowest and the highest learning rate."""
    return math.log10(min(rates)), math.log10(max(rates))
