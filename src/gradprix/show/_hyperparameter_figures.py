"""Figures of tuned hyperparameters: the validation metric against each of them, and the runs in such panels."""

import math
from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from gradprix.race import RaceRecord
from gradprix.race.record import EntryResult
from gradprix.race.run_records import TuningRun
from gradprix.text.figures import format_points_title

from ._formatting import format_value, margin, scale
from ._metric_axis import MetricAxis
from .axes import log_ticks
from .figure import Chart, Panel, tag
from .palette import colour

SIZE: dict[str, Any] = {"width": 190, "height": 150, "margins": (44, 8, 26, 24)}


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
    draw_runs(record, entry.name, name, axis, axes)


def _set_scale(axes: Axes, values: Sequence[Any]) -> None:
    """Set the scale and the range of the horizontal axis.

    The axis is categorical if any value is a string, and logarithmic if positive values span more than a factor of 20.
    """
    if any(isinstance(value, str) for value in values):
        names = sorted({*map(str, values)})
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif min(values) > 0 and max(values) > 20 * min(values):
        low, high = decades(values)
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


def draw_runs(record: RaceRecord, name: str, hyperparameter: str, axis: MetricAxis, axes: Axes) -> None:
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


def decades(rates: Sequence[float]) -> tuple[float, float]:
    """Return the decimal logarithms of the lowest and the highest learning rate."""
    return math.log10(min(rates)), math.log10(max(rates))
