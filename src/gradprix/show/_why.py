"""Diagnosis section of a report: measurements, conclusions, and a figure of the optimizers' updates."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from gradprix.race import RaceRecord
from gradprix.race.diagnosis_record import FamilyContrast, Measurement, MeasurementKind, Trait
from gradprix.text.diagnosis import TRAITS, format_findings, format_missing, format_updates_title
from gradprix.text.units import format_quantity
from gradprix.utils.wording import format_list

from ._sections import Estimate
from ._svg import SOFT
from ._training_figures import coloured_entries
from .axes import label_ends, label_width, log_ticks, percent_axis
from .figure import Chart, Panel, line_style, tag
from .palette import styles


class Column(NamedTuple):
    """Column of a table of measurements.

    Args:
        label: heading.
        meaning: what is measured, as a phrase.
        is_percent: numbers are shares, written as percentages.
    """

    label: str
    meaning: str
    is_percent: bool = False


TABLES: dict[str, dict[MeasurementKind, Column]] = {
    "Progress and step size": {
        MeasurementKind.TRAINING_LOSS: Column("final training loss", "mean over the last epoch"),
        MeasurementKind.EFFECTIVE_RATE: Column(
            "effective learning rate", "length of an update per length of the gradient, ‖u‖ / ‖g‖"
        ),
        MeasurementKind.GAIN: Column(
            "long-run learning rate",
            "distance moved per step and unit of a constant gradient, once momentum has built up, by the median weight",
        ),
        MeasurementKind.RELATIVE_UPDATE: Column(
            "update to weights", "length of an update relative to the weights, ‖u‖ / ‖x‖"
        ),
        MeasurementKind.RATE_KEPT: Column(
            "learning rate left",
            "long-run learning rate late in training relative to that early in training, without the schedule’s share",
            True,
        ),
        MeasurementKind.DIVERGED: Column("diverged", "share of the final runs", True),
    },
    "Curvature and noise": {
        MeasurementKind.CURVATURE: Column("curvature", "largest eigenvalue of the Hessian, λ"),
        MeasurementKind.PRECONDITIONING: Column(
            "preconditioned",
            "largest curvature after preconditioning, relative to steps with the same learning rate for all weights",
            True,
        ),
        MeasurementKind.STABILITY: Column(
            "stability limit",
            "product of learning rate and curvature, relative to the largest at which the rule converges on a parabola "
            "(2 for gradient descent, 38 for momentum and Adam with β₁ = 0.9)",
            True,
        ),
        MeasurementKind.STEP_LENGTH: Column(
            "decrease undone",
            "share of a step’s first-order decrease of the loss that the curvature along it undoes: 50 % at the bottom "
            "of a parabola, 100 % where a step gains nothing",
            True,
        ),
        MeasurementKind.NOISE_SCALE: Column(
            "noise scale", "in batches: far above 1, a gradient is mostly noise; far below, mostly signal"
        ),
        MeasurementKind.HARDEST_TENTH: Column(
            "hardest tenth", "decrease of their loss relative to plain gradient descent", True
        ),
        MeasurementKind.RARE_CLASSES: Column(
            "rare classes", "decrease of their loss relative to plain gradient descent", True
        ),
    },
}
"""Columns of each table of measurements, by the table's heading."""
PANELS = {
    "rate": "effective learning rate",
    "ratio": "update to weights",
    "cosine": "cosine of update and −gradient",
}
"""Title of each panel of the figure of updates."""
BINS = 25
"""Number of parts of a run over which the figure of updates averages, because single steps are mostly noise."""


def format_diagnosis(record: RaceRecord) -> dict[str, Any] | None:
    """Return the diagnosis as data for the template, or None if the race was not diagnosed.

    Returns:
        A dictionary with the keys `findings` (sentences with the entry's name, empty for families), `tables` (by
        heading, with `columns` and `rows`), `families` (rows of the comparisons of families), `members` (sentences
        about who belongs to them), and `missing` (why something is not shown, as sentences).
    """
    if record.diagnosis is None:
        return None
    measured = {
        entry.name: {m.kind: m for m in record.diagnosis.entries[entry.name].measurements} for entry in record.ranking
    }
    tables, unknown = {}, []
    for heading, columns in TABLES.items():
        present = [kind for kind in columns if any(kind in each for each in measured.values())]
        shown = [k for k in present if any(_is_known(each[k]) for each in measured.values() if k in each)]
        unknown += [columns[kind].label for kind in present if kind not in shown]
        rows = {
            name: [_format_estimate(each.get(kind), columns[kind].is_percent) for kind in shown]
            for name, each in measured.items()
        }
        if shown:
            tables[heading] = {"columns": [columns[kind] for kind in shown], "rows": rows}
    return {
        "findings": format_findings(record),
        "tables": tables,
        "families": _format_families(record.diagnosis.families),
        "members": _format_members(record.diagnosis.families),
        "missing": format_missing(record, unknown),
    }


def _is_known(measurement: Measurement) -> bool:
    return measurement.number is not None or measurement.low is not None


def _format_estimate(measurement: Measurement | None, is_percent: bool) -> Estimate:
    """Format a measurement with its confidence interval. Numbers that are None are infinite or unknown."""
    if measurement is None or not _is_known(measurement):
        return Estimate("–")
    is_clear = measurement.finding is not None
    is_clear = is_clear or (measurement.comparison is not None and measurement.comparison.is_large)
    number, low, high = (
        "" if x is None else _format_share(x) if is_percent else format_quantity(x)
        for x in (measurement.number, measurement.low, measurement.high)
    )
    interval = f"{low} to {high}" if high else f"above {low}"
    if not number:
        return Estimate(interval, "", is_clear)
    return Estimate(number + "\u00a0%" * is_percent, "" if low == high else interval, is_clear)


def _format_share(share: float) -> str:
    """Format a share in percent, without the sign and with two significant digits below 10 %."""
    return format_quantity(100 * share) if abs(share) < 0.1 else f"{100 * share:,.0f}".replace("-", "−")


def _format_families(contrasts: Sequence[FamilyContrast]) -> dict[str, list[Estimate]]:
    """Return a row for each measurement, with a ratio for each trait in the order of `TRAITS`."""
    labels = {kind: column.label for columns in TABLES.values() for kind, column in columns.items()}
    ratios = {(contrast.kind, contrast.trait): contrast.ratio for contrast in contrasts}
    rows = {}
    for kind in dict.fromkeys(contrast.kind for contrast in contrasts):
        cells = [ratios.get((kind, trait)) for trait in Trait]
        rows[labels[kind]] = [
            Estimate("–")
            if ratio is None
            else Estimate(
                f"×{format_quantity(ratio.number)}",
                f"{format_quantity(ratio.low)} to {format_quantity(ratio.high)}",
                ratio.is_large,
            )
            for ratio in cells
        ]
    return rows


def _format_members(contrasts: Sequence[FamilyContrast]) -> list[str]:
    """Return a sentence for each trait that names the entries with and without it."""
    first = {contrast.trait: contrast for contrast in reversed(contrasts)}
    return [
        f"With {TRAITS[trait]}: {format_list(first[trait].members)}; without: {format_list(first[trait].others)}."
        for trait in Trait
        if trait in first
    ]


def moves(record: RaceRecord) -> Chart:
    """Draw three properties of the updates during training, with a line for each entry.

    They are the effective learning rate, the ratio of the norms of update and weights, and the cosine of the angle
    between the update and the negative gradient.
    """
    right = 14 + label_width(entry.name for entry in record.entries)
    size: dict[str, Any] = {"width": max(300, 208 + right), "height": 280, "margins": (48, right, 30, 44)}
    panels = [Panel(partial(_draw_updates, record, name), title, **size) for name, title in PANELS.items()]
    return Chart("moves", format_updates_title(record), tuple(panels), len(panels))


def _draw_updates(record: RaceRecord, panel: str, axes: Axes) -> None:
    """Draw a property of the updates of all entries, the coloured ones on top, with their names at the right."""
    assert record.diagnosis is not None
    coloured, looks = coloured_entries(record), styles(entry.name for entry in record.entries)
    is_log = panel != "cosine"
    lines = {
        entry.name: _average(getattr(updates, panel), is_log)
        for entry in sorted(record.ranking, key=lambda entry: entry.name in coloured)
        if (updates := record.diagnosis.entries[entry.name].updates).step  # empty if all runs diverged
    }
    finite = [y for line in lines.values() for y in line if math.isfinite(y)]
    if is_log and finite:
        low, high = math.log10(min(finite)) - 0.1, math.log10(max(finite)) + 0.1
        axes.set_yscale("log")
        axes.set_ylim(10**low, 10**high)
        log_ticks(axes.yaxis, low, high)
    elif finite:
        axes.set_ylim(min(0.0, *finite) - 0.05, 1.05)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the run")
    percent_axis(axes.xaxis, True)
    for name, line in lines.items():
        (drawn,) = axes.plot(
            [(i + 0.5) / BINS * 100 for i in range(BINS)], line, **line_style(looks[name], name not in coloured)
        )
        tag(drawn, name, f"{name}: {format_quantity(line[BINS // 2])} halfway")
    ranked = sorted(lines, key=lambda name: name not in coloured)
    label_ends(axes, [(lines[n][-1], n, looks[n].colour if n in coloured else SOFT) for n in ranked])


def _average(values: Sequence[float | None], is_log: bool) -> list[float]:
    """Return the means of `BINS` consecutive parts of a series, geometric ones if `is_log`; NaN where undefined."""
    known = np.array([math.nan if value is None else value for value in values])
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.array_split(np.log(known) if is_log else known, BINS)
    means = [part[np.isfinite(part)].mean() if np.isfinite(part).any() else math.nan for part in parts]
    return [float(value) for value in (np.exp(means) if is_log else means)]
