"""Figures of the learning rate: the validation metric against it. All are pure functions of a race record."""

import math
from collections.abc import Mapping
from functools import partial
from statistics import fmean

from matplotlib.axes import Axes

from gradprix.race import RaceRecord
from gradprix.race.record import EntryResult
from gradprix.race.response_curves import response_curves
from gradprix.race.run_records import TuningRun
from gradprix.text.figures import format_sensitivity_title
from gradprix.text.units import format_factor
from gradprix.tuning.response_curve import ResponseCurve

from ._formatting import format_margin, format_value, margin, scale
from ._hyperparameter_figures import SIZE, decades, draw_runs
from ._metric_axis import MetricAxis
from .axes import log_ticks
from .figure import Chart, Panel, tag
from .lettering import fit, text_width
from .palette import colour

Line = list[tuple[float, float]]


def sensitivity(record: RaceRecord) -> Chart:
    """Draw the validation metric against the learning rate, with a panel for each entry that tunes it.

    All panels have the same width in decades. Dots are tuning runs, the line is the response curve, the vertical band
    is the learning-rate tolerance, and the horizontal band contains the values within a margin of the entry's best.
    """
    entries = [entry for entry in record.ranking if "lr" in entry.tuned]
    curves = response_curves(record.tuning_runs, record.plan.metric.higher_is_better, margin(record))
    axis = MetricAxis.from_record(record, {e.name: _runs_near(record, e.name, curves[e.name]) for e in entries})
    spans = {e.name: decades([run.learning_rate for run in record.tuning_runs[e.name]]) for e in entries}
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
    draw_runs(record, entry.name, "lr", axis, axes)


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
