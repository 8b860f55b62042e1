"""Figures of tuning: the validation metric against tuned hyperparameters. Pure functions of a race record."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from plotly import graph_objects as go
from plotly.subplots import make_subplots

from gradprix.race import RaceRecord
from gradprix.race.record import EntryResult
from gradprix.race.response_curves import response_curves
from gradprix.race.run_records import TuningRun
from gradprix.tuning.response_curve import ResponseCurve

from ._formatting import format_factor, margin, scale
from .style import Style, apply_layout, escape_label, powers, rounded, styles, translucent

Line = list[tuple[float, float]]
Place = dict[str, int]
"""Row and column of a panel."""
LEAST, MOST = 10.0, 30.0
"""Limits of the height of the panels, in margins from the best optimum."""
MOST_ENTRIES = 0.75
"""Share of the entries whose runs near their optimum determine the height, so that a few bad ones do not."""
ZONE = "rgba(128,128,128,0.16)"


@dataclass(frozen=True)
class MetricAxis:
    """Vertical axis of all panels, in displayed units.

    Args:
        title: title.
        best: better end.
        worst: worse end; runs beyond it are drawn there.
        suffix: unit of the ticks.
    """

    title: str
    best: float
    worst: float
    suffix: str

    @classmethod
    def from_record(cls, record: RaceRecord, near: Mapping[str, Sequence[TuningRun]]) -> "MetricAxis":
        """Return the axis that shows the runs near the optima.

        Args:
            record: record of a race.
            near: the runs of each entry near its optimum.
        """
        metric, step = record.plan.metric, margin(record)
        sign = -1 if metric.higher_is_better else 1
        costs = [sign * run.metric for runs in record.tuning_runs.values() for run in runs if _is_scored(run)]
        costs = costs or [0.0, 1.0]
        near_costs = [each for runs in near.values() if (each := [sign * run.metric for run in runs])]
        first = min(map(fmean, near_costs), default=min(costs))
        reach = float(np.quantile([max(each) for each in near_costs or [costs]], MOST_ENTRIES)) + step
        worst = min(max(first + LEAST * step, reach), first + MOST * step, max(costs))
        pad = 0.06 * (worst - min(costs)) or 1e-6
        unit = sign * scale(record)
        title = f"validation {metric.name.removeprefix('test ')}"
        return cls(title, unit * (min(costs) - pad), unit * (worst + pad), " %" * metric.percent)

    def is_beyond(self, value: float) -> bool:
        """Return True if a value is beyond the worse end, or not a number."""
        return not (value >= self.worst if self.best > self.worst else value <= self.worst)

    def draw(self, fig: go.Figure) -> None:
        """Apply the axis to all panels."""
        low, high = sorted((self.best, self.worst))
        pad = 0.04 * (high - low)
        fig.update_yaxes(range=[low - pad, high + pad], ticksuffix=self.suffix, nticks=6)
        fig.update_yaxes(title=escape_label(self.title), col=1)

    def draw_zone(self, fig: go.Figure, limit: float, place: Place) -> None:
        """Shade the zone from the better end to a limit."""
        if not self.is_beyond(limit):
            edge = self.best + 0.05 * (self.best - self.worst)
            fig.add_hrect(*sorted((limit, edge)), fillcolor=ZONE, line_width=0, layer="below", **place)


def sensitivity(record: RaceRecord) -> go.Figure:
    """Plot the validation metric against the learning rate, one panel per entry, all equally many decades wide.

    Dots are tuning runs, the line is the response curve, the vertical band the learning-rate tolerance, and the
    horizontal zone is within a margin of the entry's best.
    """
    entries, looks = record.ranking, styles(record)
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
    spans = {name: _decades([run.learning_rate for run in runs]) for name, runs in record.tuning_runs.items()}
    width = max(end - start for start, end in spans.values()) + 0.3
    for number, entry in enumerate(entries):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        _draw_runs(fig, record, entry.name, "lr", looks[entry.name], axis, place)
        if (curve := curves[entry.name]) is not None:
            _draw_curve(fig, record, entry, curve, looks[entry.name], axis, place)
        middle = sum(spans[entry.name]) / 2
        fig.update_xaxes(range=[middle - width / 2, middle + width / 2], **place)
    edges = [edge for span in spans.values() for edge in span]
    fig.update_xaxes(type="log", **powers(min(edges) - width, max(edges) + width))
    axis.draw(fig)
    return apply_layout(fig, 70 + 185 * rows, showlegend=False)


def _title(entry: EntryResult, look: Style) -> str:
    return f"<b>{look['label']}</b> {entry.tuned['lr']:g}, {format_factor(entry.tolerance_decades)}"


def _runs_near(record: RaceRecord, name: str, curve: ResponseCurve | None) -> list[TuningRun]:
    """Return the runs of an entry at learning rates that are within a margin of its best by the response curve."""
    if curve is None:
        return []
    limit = float(curve.metrics.min()) + margin(record)
    return [run for run in record.tuning_runs[name] if _is_scored(run) and curve(run.learning_rate) <= limit]


def _draw_curve(
    fig: go.Figure,
    record: RaceRecord,
    entry: EntryResult,
    curve: ResponseCurve,
    look: Style,
    axis: MetricAxis,
    place: Place,
) -> None:
    """Draw the response curve, the tuned learning rate on it, the tolerance, and the zone within a margin."""
    sign, step = (-1 if record.plan.metric.higher_is_better else 1), margin(record)
    unit, rate = scale(record) * sign, float(entry.tuned["lr"])  # type: ignore[arg-type]
    costs: dict[float, list[float]] = {}
    for run in record.tuning_runs[entry.name]:
        costs.setdefault(run.learning_rate, []).append(sign * run.metric if _is_scored(run) else math.inf)
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
    tuned = axis.worst if axis.is_beyond(value := unit * curve(rate)) else value
    fig.add_scatter(x=[rate], y=[tuned], mode="markers", marker=ring, name="tuned", hovertemplate=hover, **place)
    axis.draw_zone(fig, unit * (float(curve.metrics.min()) + step), place)
    if entry.tolerance is not None:
        fill = {"fillcolor": translucent(look["color"], 0.15), "line_width": 0, "layer": "below"}
        fig.add_vrect(*entry.tolerance, **fill, **place)


def _curve_lines(curve: ResponseCurve, means: Mapping[float, float], step: float) -> tuple[Line, Line]:
    """Return the response curve near its optimum, and lines through the means of the runs further out.

    Far from the optimum the curve is flat, because it clips bad scores. It is drawn up to the last learning rate, on
    either side, whose runs are at most two margins worse than it; a point of NaN separates the sides of the other line.

    Args:
        curve: response curve of an entry.
        means: mean of the runs at each learning rate, ascending; smaller is better.
        step: the margin.
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
    """Draw an entry's tuning runs: dots, triangles at the edge if they are beyond it, crosses if they diverged."""
    runs = [run for run in record.tuning_runs[name] if hyperparameter in run.point]
    beyond = "triangle-down" if axis.best > axis.worst else "triangle-up"
    label = f"{look['label']} at {escape_label(hyperparameter) + ' ' if hyperparameter != 'lr' else ''}%{{x}}"
    for is_scored in (True, False):
        drawn = [run for run in runs if _is_scored(run) is is_scored]
        if not drawn:
            continue
        values = [scale(record) * run.metric if is_scored else math.nan for run in drawn]
        outside = [axis.is_beyond(value) for value in values]
        places = [axis.worst if flag else value for value, flag in zip(values, outside, strict=True)]
        symbols = [beyond if flag else "circle" for flag in outside] if is_scored else "x"
        marker: dict[str, Any] = {"color": look["color"], "symbol": symbols, "size": 6 if is_scored else 8}
        end = "%{customdata[0]:.4~g}, seed %{customdata[1]}" if is_scored else "diverged"
        fig.add_scatter(
            x=[run.point[hyperparameter] for run in drawn],
            y=rounded(places),
            customdata=[[value, run.seed] for value, run in zip(rounded(values), drawn, strict=True)],
            mode="markers",
            marker=marker | ({"opacity": 0.45} if is_scored else {}),
            name="runs" if is_scored else "diverged",
            hovertemplate=f"{label}: {end}<extra></extra>",
            **place,
        )


def points(record: RaceRecord) -> go.Figure:
    """Plot the validation metric against each tuned hyperparameter: a row per entry, a column per hyperparameter."""
    entries, looks, names = record.ranking, styles(record), record.plan.tune
    fig = make_subplots(
        len(entries),
        len(names),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.25 / max(2, len(entries)),
    )
    tuned = {e.name: [r for r in record.tuning_runs[e.name] if r.point == e.tuned and _is_scored(r)] for e in entries}
    axis = MetricAxis.from_record(record, tuned)
    for row, entry in enumerate(entries, start=1):
        for column, name in enumerate(names, start=1):
            place = {"row": row, "col": column}
            _draw_runs(fig, record, entry.name, name, looks[entry.name], axis, place)
            if tuned[entry.name] and name in entry.tuned:
                _draw_tuned(fig, record, entry.tuned[name], tuned[entry.name], looks[entry.name], axis, place)
    for column, name in enumerate(names, start=1):
        fig.update_xaxes(title=escape_label(name), row=len(entries), col=column)
        _axis(
            fig, [run.point[name] for runs in record.tuning_runs.values() for run in runs if name in run.point], column
        )
    axis.draw(fig)
    for row, entry in enumerate(entries, start=1):
        fig.update_yaxes(title=f"<b>{looks[entry.name]['label']}</b>", row=row, col=1)
    return apply_layout(fig, 110 + 150 * len(entries), showlegend=False)


def _draw_tuned(
    fig: go.Figure, record: RaceRecord, x: Any, runs: Sequence[TuningRun], look: Style, axis: MetricAxis, place: Place
) -> None:
    """Draw a ring at the mean of the runs at the tuned point, and the zone within a margin of it."""
    mean = fmean(run.metric for run in runs)
    worse = -1 if record.plan.metric.higher_is_better else 1
    ring = {"symbol": "circle-open", "size": 14, "color": look["color"], "line": {"width": 2.5}}
    value = scale(record) * mean
    y = [axis.worst if axis.is_beyond(value) else value]
    fig.add_scatter(x=[x], y=y, mode="markers", marker=ring, name="tuned", hoverinfo="skip", **place)
    axis.draw_zone(fig, scale(record) * (mean + worse * margin(record)), place)


def _is_scored(run: TuningRun) -> bool:
    return run.diverged is None and math.isfinite(run.metric)


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
