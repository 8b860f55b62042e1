"""Presentation of a tuned optimizer: terminal output, figure of the learning rates, and HTML page."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from rich.console import Group, RenderableType
from rich.text import Text

from gradprix.race import TUNE_PAGE, TunePlan, TuneRecord, TuneResult
from gradprix.race.run_records import TuningRun
from gradprix.text.answer import format_code
from gradprix.text.tuning import format_protocol, format_rates_title, format_tuning
from gradprix.text.units import format_duration, format_points, format_value
from gradprix.utils.files import write_atomically

from ._svg import GREY, INK
from ._templates import render
from .axes import log_ticks, percent_axis
from .figure import Chart, Panel, tag
from .palette import colour
from .plans import describe_run, format_range
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
        rates=learning_rates(record),
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


def learning_rates(record: TuneRecord) -> Chart:
    """Draw the validation metric against the learning rate.

    The figure shows the tuning runs without the effects of their seeds, the response curve, the learning-rate
    tolerance, and the tuned and the default learning rate. Runs with a metric that is worse than the vertical axis
    shows, and diverged runs, are drawn at its worse end. The curve ends at the learning rates of such runs, because it
    is fitted to clipped scores there.
    """
    title = f"validation {_plain_name(record)}"
    panel = Panel(partial(_draw_learning_rates, record), title, height=300, margins=(60, 20, 50, 44))
    return Chart("rates", format_rates_title(record), (panel,))


def _draw_learning_rates(record: TuneRecord, axes: Axes) -> None:
    """Draw the runs, the response curve, the tolerance, and the tuned and the default learning rate."""
    rates = [math.log10(run.learning_rate) for run in record.runs]
    low, high = _pad(min(rates), max(rates))
    best, worst = _metric_range(record)
    axes.set_xscale("log")
    axes.set_xlim(10**low, 10**high)
    log_ticks(axes.xaxis, low, high)
    axes.set_xlabel("learning rate")
    axes.set_ylim(*_pad(*sorted((best, worst))))
    percent_axis(axes.yaxis, record.plan.metric.percent)
    if record.tolerance is not None:
        axes.axvspan(*record.tolerance, color=GREY, alpha=0.18, lw=0)
    beyond = _draw_runs(record, worst, axes)
    if record.curve is not None:
        first = max((rate for rate in beyond if rate < record.learning_rate), default=0.0)
        last = min((rate for rate in beyond if rate > record.learning_rate), default=math.inf)
        points = zip(record.curve.learning_rates, record.curve.metrics, strict=True)
        shown = [(rate, _unit(record) * value) for rate, value in points if first <= rate <= last]
        axes.plot(*zip(*shown, strict=True), color=colour(record.best.name), label="curve")
    labels = [("tuned", record.learning_rate, "solid")]
    if record.default is not None and record.default.settings != record.tuned:
        labels.append(("default", float(record.default.settings["lr"]), "dashed"))  # type: ignore[arg-type]
    axes.set_title(axes.get_title(loc="left"), pad=26)  # above the labels
    # Labels of close learning rates stand on opposite sides of their lines.
    order = sorted(rate for _, rate, _ in labels)
    place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "xytext": (0, 4)}
    for name, rate, dash in labels:
        side = "center" if len(labels) == 1 else "right" if rate == order[0] else "left"
        axes.axvline(rate, color=INK, lw=1.5, ls=dash)
        axes.annotate(f"{name}: {rate:g}", (rate, 1), ha=side, annotation_clip=False, **place)


def _pad(low: float, high: float) -> tuple[float, float]:
    """Return an interval with some room at both ends."""
    room = 0.06 * (high - low) or 0.5
    return low - room, high + room


def _metric_range(record: TuneRecord) -> tuple[float, float]:
    """Return the best and the worst value of the metric that the vertical axis shows, in displayed units."""
    pick, unit = (max if record.plan.metric.higher_is_better else min), _unit(record)
    scores = [record.adjusted_metric(run) for run in record.runs if run.diverged is None]
    if record.curve is None or not scores:
        return unit * record.plan.chance_level, unit * record.plan.chance_level
    metrics = record.curve.metrics
    peak, bottom = pick(metrics), min(metrics) if pick is max else max(metrics)
    return unit * pick(peak, *scores), unit * (peak + SHOWN * (bottom - peak))


def _draw_runs(record: TuneRecord, worst: float, axes: Axes) -> set[float]:
    """Draw the tuning runs.

    Runs within the axis are dots. Runs beyond its worse end are triangles at this end, and diverged runs are crosses
    there.

    Args:
        record: record of the tuning.
        worst: worse end of the axis, in displayed units.
        axes: axes to draw into.

    Returns:
        The learning rates of which every run is drawn at the worse end.
    """
    unit, is_higher_better = _unit(record), record.plan.metric.higher_is_better
    trained = [run for run in record.runs if run.diverged is None]
    heights = [unit * record.adjusted_metric(run) for run in trained]
    inside = [run for run, y in zip(trained, heights, strict=True) if (y > worst) == is_higher_better or y == worst]
    beyond = [run for run in trained if run not in inside]
    diverged = [run for run in record.runs if run.diverged is not None]
    for runs, marker, size in ((inside, "o", 7), (beyond, "v" if is_higher_better else "^", 8), (diverged, "X", 8)):
        if not runs:
            continue
        y = [unit * record.adjusted_metric(run) if run in inside else worst for run in runs]
        (dots,) = axes.plot([run.learning_rate for run in runs], y, marker, ms=size, ls="none", mew=0, clip_on=False)
        dots.set(color=colour(record.best.name), alpha=0.6 if runs is inside else 1.0)
        tag(dots, record.best.name, [f"{run.learning_rate:g}: {_format_run(record, run)}" for run in runs])
    return {run.learning_rate for run in (*beyond, *diverged)} - {run.learning_rate for run in inside}


def _format_run(record: TuneRecord, run: TuningRun) -> str:
    return "diverged" if run.diverged is not None else format_value(record.plan.metric, run.metric)


def _unit(record: TuneRecord) -> float:
    return 100.0 if record.plan.metric.percent else 1.0


def _plain_name(record: TuneRecord) -> str:
    return record.plan.metric.name.removeprefix("test ")
