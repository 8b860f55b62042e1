"""Figures of tuning: the validation metric against tuned hyperparameters. All are pure functions of a race record."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from gradprix.race import RaceRecord
from gradprix.race.record import EntryResult
from gradprix.race.response_curves import response_curves
from gradprix.race.run_records import TuningRun
from gradprix.text.figures import format_points_title, format_sensitivity_title
from gradprix.text.units import format_factor
from gradprix.tuning.response_curve import ResponseCurve

from ._formatting import format_margin, format_value, margin, scale
from ._metric_axis import MetricAxis
from .figure import Chart, Panel, log_ticks, tag
from .lettering import fit, text_width
from .palette import colour

Line = list[tuple[float, float]]
SIZE: dict[str, Any] = {"width": 190, "height": 150, "margins": (44, 8, 26, 24)}


def sensitivity(record: RaceRecord) -> Chart:
    """Draw the validation metric against the learning rate, with a panel for each entry that tunes it.

    All panels have the same width in decades. Dots are tuning runs, the line is the response curve, the vertical band
    is the learning-rate tolerance, and the horizontal band contains the values within a margin of the entry's best.
    """
    entries = [entry for entry in record.ranking if "lr" in entry.tuned]
    curves = response_curves(record.tuning_runs, record.plan.metric.higher_is_better, margin(record))
    axis = MetricAxis.from_record(record, {e.name: _runs_near(record, e.name, curves[e.name]) for e in entries})
    spans = {e.name: _decades([run.learning_rate for run in record.tuning_runs[e.name]]) for e in entries}
    width = max(end - start for start, end in spans.values()) + 0.3
    panels = []
    for entry in entries:
        middle = sum(spans[entry.name]) / 2
        limits = (middle - width / 2, middle + width / 2)
        draw = partial(_draw_learning_rates, record, entry, curves[entry.name], axis, limits)
        values = f" {entry.tuned['lr']:g}, {format_factor(entry.tolerance_decades)}"
        title = fit(entry.name, SIZE["width"] - 8 - text_width(values, 13, "bold"), 13, "bold") + values
        panels.append(Panel(draw, title, alt=_describe(record, entry), entry=entry.name, **SIZE))
    name = record.plan.metric.name.removeprefix("test ")
    legend = (
        f"Validation {name} against the learning rate. Dots: tuning runs. Ring: the tuned rate. Coloured band: the "
        f"tolerance (×): rates whose score is within the margin, {format_margin(record.plan.metric)}, of the best."
    )
    return Chart("sensitivity", format_sensitivity_title(record), tuple(panels), 4, legend)


def _describe(record: RaceRecord, entry: EntryResult) -> str:
    """Describe a panel to screen readers."""
    name = record.plan.metric.name.removeprefix("test ")
    return (
        f"{entry.name}: validation {name} against the learning rate, best at {entry.tuned['lr']:g}, "
        f"tolerance {format_factor(entry.tolerance_decades)}"
    )


def _runs_near(record: RaceRecord, name: str, curve: ResponseCurve | None) -> list[TuningRun]:
    """Return the runs of an entry at near-optimal learning rates: within a margin of the best of its response curve.

    Returns an empty list if there is no curve. Diverged runs are left out.
    """
    if curve is None:
        return []
    limit = float(curve.metrics.min()) + margin(record)
    return [run for run in record.tuning_runs[name] if run.is_scored and curve(run.learning_rate) <= limit]


def _draw_learning_rates(
    record: RaceRecord,
    entry: EntryResult,
    curve: ResponseCurve | None,
    axis: MetricAxis,
    limits: tuple[float, float],
    axes: Axes,
) -> None:
    """Draw the panel of an entry.

    Args:
        record: record of a race.
        entry: the entry.
        curve: its response curve; None if there is none.
        axis: vertical axis.
        limits: ends of the horizontal axis, as decimal logarithms.
        axes: axes to draw into.
    """
    axes.set_xscale("log")
    axes.set_xlim(10 ** limits[0], 10 ** limits[1])
    log_ticks(axes.xaxis, *limits)
    axis.apply(axes)
    if curve is not None:
        _draw_curve(record, entry, curve, axis, axes)
    _draw_runs(record, entry.name, "lr", axis, axes)


def _draw_curve(record: RaceRecord, entry: EntryResult, curve: ResponseCurve, axis: MetricAxis, axes: Axes) -> None:
    """Draw an entry's response curve, tuned learning rate and tolerance, and the band within a margin of its best."""
    sign, step = (-1 if record.plan.metric.higher_is_better else 1), margin(record)
    unit, rate, own = scale(record) * sign, float(entry.tuned["lr"]), colour(entry.name)  # type: ignore[arg-type]
    costs: dict[float, list[float]] = {}
    for run in record.tuning_runs[entry.name]:
        costs.setdefault(run.learning_rate, []).append(sign * run.metric if run.is_scored else math.inf)
    smooth, outer = _curve_lines(curve, {each: fmean(costs[each]) for each in sorted(costs)}, step)
    axis.draw_zone(axes, unit * (float(curve.metrics.min()) + step))
    if entry.tolerance is not None:
        axes.axvspan(*entry.tolerance, color=own, alpha=0.15, lw=0)
    for line, width, name in ((smooth, 2, "curve"), (outer, 1, "means")):
        heights = [unit * y if math.isfinite(y) else math.nan for _, y in line]
        (drawn,) = axes.plot([x for x, _ in line], heights, color=own, lw=width, label=name)
        tag(drawn, entry.name)
    (ring,) = axes.plot(
        [rate], [axis.clip(unit * curve(rate))], "o", mfc="none", mec=own, mew=2.5, ms=12, label="tuned"
    )
    tag(ring, entry.name, f"{entry.name} at {rate:g}, smoothed: {format_value(record, sign * curve(rate))}")


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


def _draw_runs(record: RaceRecord, name: str, hyperparameter: str, axis: MetricAxis, axes: Axes) -> None:
    """Draw the tuning runs of an entry in a panel.

    Runs within the axis are dots. Runs beyond its worse end are triangles at this end, and diverged runs are crosses
    there.

    Args:
        record: record of a race.
        name: name of the entry.
        hyperparameter: name of the hyperparameter on the horizontal axis. Runs without it are left out.
        axis: vertical axis.
        axes: axes of the panel.
    """
    runs = [run for run in record.tuning_runs[name] if hyperparameter in run.point]
    unit = scale(record)
    groups: dict[str, list[TuningRun]] = {"runs": [], "beyond": [], "diverged": []}
    for run in runs:
        kind = "diverged" if not run.is_scored else "beyond" if axis.is_beyond(unit * run.metric) else "runs"
        groups[kind].append(run)
    markers = {"runs": "o", "beyond": "v" if axis.best > axis.worst else "^", "diverged": "X"}
    for kind, each in groups.items():
        if not each:
            continue
        heights = [axis.worst if kind == "diverged" else axis.clip(unit * run.metric) for run in each]
        positions = [_position(axes, run.point[hyperparameter]) for run in each]
        look: dict[str, Any] = {"color": colour(name), "mew": 0, "alpha": 0.8 if kind == "diverged" else 0.45}
        (dots,) = axes.plot(positions, heights, markers[kind], ms=6, label=kind, clip_on=False, **look)
        place = "" if hyperparameter == "lr" else f"{hyperparameter} "
        scores = ["diverged" if kind == "diverged" else format_value(record, run.metric) for run in each]
        tips = [
            f"{name} at {place}{_format(run.point[hyperparameter])}: {score}, seed {run.seed}"
            for run, score in zip(each, scores, strict=True)
        ]
        tag(dots, name, tips)


def points(record: RaceRecord) -> Chart:
    """Draw the validation metric against every tuned hyperparameter: a row of panels for each entry."""
    tuned = {
        e.name: [r for r in record.tuning_runs[e.name] if r.point == e.tuned and r.is_scored] for e in record.ranking
    }
    axis = MetricAxis.from_record(record, tuned)
    values = {
        name: [run.point[name] for runs in record.tuning_runs.values() for run in runs if name in run.point]
        for name in record.plan.tune
    }
    panels = [
        Panel(
            partial(_draw_point, record, entry, name, tuned[entry.name], axis, values[name]),
            f"{entry.name}: {name} {_format(entry.tuned[name])}",
            entry=entry.name,
            **SIZE,
        )
        for entry in record.ranking
        for name in record.plan.tune
        if name in entry.tuned
    ]
    name = record.plan.metric.name.removeprefix("test ")
    legend = f"Validation {name} against each tuned value, the others varying too. Ring: mean at the tuned point."
    return Chart("sensitivity", format_points_title(record), tuple(panels), min(4, len(record.plan.tune)), legend)


def _draw_point(
    record: RaceRecord,
    entry: EntryResult,
    name: str,
    best: Sequence[TuningRun],
    axis: MetricAxis,
    values: Sequence[Any],
    axes: Axes,
) -> None:
    """Draw the panel of an entry and a hyperparameter.

    Args:
        record: record of a race.
        entry: the entry.
        name: name of the hyperparameter.
        best: runs with the tuned values.
        axis: vertical axis.
        values: values of the hyperparameter in all runs of the race, for the horizontal axis.
        axes: axes to draw into.
    """
    axis.apply(axes)
    _set_scale(axes, values)
    if best:
        mean = fmean(run.metric for run in best)
        worse = -1 if record.plan.metric.higher_is_better else 1
        axis.draw_zone(axes, scale(record) * (mean + worse * margin(record)))
        height, own = axis.clip(scale(record) * mean), colour(entry.name)
        place = _position(axes, entry.tuned[name])
        (ring,) = axes.plot([place], [height], "o", mfc="none", mec=own, mew=2.5, ms=12, label="tuned")
        tag(ring, entry.name, f"{entry.name}: mean {format_value(record, mean)} at the tuned values")
    _draw_runs(record, entry.name, name, axis, axes)


def _set_scale(axes: Axes, values: Sequence[Any]) -> None:
    """Set the scale and the range of the horizontal axis.

    The axis is categorical if any value is a string, and logarithmic if positive values span more than a factor of 20.
    """
    if any(isinstance(value, str) for value in values):
        names = sorted({*map(str, values)})
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif min(values) > 0 and max(values) > 20 * min(values):
        low, high = _decades(values)
        axes.set_xscale("log")
        axes.set_xlim(10 ** (low - 0.15), 10 ** (high + 0.15))
        log_ticks(axes.xaxis, low - 0.15, high + 0.15)
    else:
        pad = 0.05 * (max(values) - min(values)) or 0.5
        axes.set_xlim(min(values) - pad, max(values) + pad)
        axes.locator_params(axis="x", nbins=4)


def _position(axes: Axes, value: Any) -> float:
    """Return the horizontal position of a value: the number of its tick if the axis is categorical."""
    names = [label.get_text() for label in axes.get_xticklabels()] if isinstance(value, str) else []
    return float(names.index(value)) if value in names else float(value)


def _format(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _decades(rates: Sequence[float]) -> tuple[float, float]:
    """Return the decimal logarithms of the lowest and the highest learning rate."""
    return math.log10(min(rates)), math.log10(max(rates))
