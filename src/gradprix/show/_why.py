"""Diagnosis section of a report: measurements, conclusions, and a figure of the optimizers' updates."""

from typing import Any

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from gradprix.race import RaceRecord
from gradprix.race.diagnosis_record import Measurement, MeasurementKind
from gradprix.text.diagnosis import format_finding

from ._sections import Estimate
from .style import apply_layout, styles

COLUMNS = {
    MeasurementKind.STEP_LENGTH: (
        "steps",
        "how far a step goes: 0.5 is the bottom of the parabola along it, above 1 the loss would rise",
    ),
    MeasurementKind.SHARPNESS: (
        "sharpness",
        "the largest curvature as the rule sees it, over where it ceases to settle, which is 1",
    ),
    MeasurementKind.NOISE_SCALE: (
        "noise scale",
        "in batches of its own size: many times more, and a step is mostly noise",
    ),
    MeasurementKind.EFFECTIVE_RATE: ("rate left", "the late effective rate over the early one, the schedule taken out"),
    MeasurementKind.HARDEST_TENTH: (
        "hardest tenth",
        "how much of the step goes to them, in units of what the plain gradient gives",
    ),
    MeasurementKind.RARE_CLASSES: ("rare classes", "likewise"),
    MeasurementKind.DIVERGED: ("diverged", "the share of final runs"),
}
"""Label and interpretation of each measurement."""
PANELS = {"rate": "effective rate ‖u‖ / ‖g‖", "ratio": "update to weights ‖u‖ / ‖x‖", "cosine": "cosine of u and −g"}


def format_diagnosis(record: RaceRecord) -> dict[str, Any] | None:
    """Return the diagnosis as data for the template, or None if the race was not diagnosed.

    Returns:
        A dictionary with three keys. `columns` maps the label of each measurement to its interpretation. `rows` maps
        the name of each entry to its estimates, one for each column. `findings` lists the conclusive measurements, as
        tuples of entry name, sentence, label and estimate.
    """
    if record.diagnosis is None:
        return None
    entries = [(entry, record.diagnosis.entries[entry.name].measurements) for entry in record.ranking]
    kinds = [kind for kind in COLUMNS if any(m.kind == kind for _, each in entries for m in each)]
    by_kind = {entry.name: {m.kind: _format_estimate(m) for m in each} for entry, each in entries}
    return {
        "columns": dict(COLUMNS[kind] for kind in kinds),
        "rows": {name: [each.get(kind, Estimate("-")) for kind in kinds] for name, each in by_kind.items()},
        "findings": [
            (entry.name, format_finding(m, entry.final.divergence_steps), COLUMNS[m.kind][0], _format_estimate(m))
            for entry, each in entries
            for m in each
            if m.finding
        ],
    }


def _format_estimate(measurement: Measurement) -> Estimate:
    """Format a measurement with its confidence interval. Numbers that are None are infinite or unknown."""
    is_clear, bounds = measurement.finding is not None, (measurement.low, measurement.high)
    if measurement.kind is MeasurementKind.NOISE_SCALE and is_clear and measurement.high is None:
        return Estimate(f"above {measurement.low:.2g}" if measurement.low else "no signal found", is_clear=True)
    if measurement.number is None or None in bounds:
        return Estimate("not clear")
    number, low, high = (f"{x:.2g}".replace("-", "−") for x in (measurement.number, *bounds))
    return Estimate(number, "" if low == high else f"{low} to {high}", is_clear)


def moves(record: RaceRecord) -> go.Figure:
    """Plot three properties of the updates during training, with a line for each entry.

    They are the effective learning rate, the ratio of the norms of update and weights, and the cosine of the angle
    between the update and the negative gradient.
    """
    assert record.diagnosis is not None
    entries, looks = record.diagnosis.entries, styles(record)
    fig = make_subplots(1, 3, subplot_titles=list(PANELS.values()), horizontal_spacing=0.07)
    for entry in record.ranking:
        name, own = entry.name, entries[entry.name].updates
        line = {"color": looks[name]["color"], "dash": looks[name]["dash"], "width": 1.8}
        if not own.step:
            continue  # all runs that were diagnosed diverged
        last = max(own.step)
        for column, panel in enumerate(PANELS, start=1):
            fig.add_scatter(
                x=[round(step / last, 4) for step in own.step],
                y=getattr(own, panel),
                mode="lines",
                name=looks[name]["label"],
                legendgroup=name,
                showlegend=column == 1,
                line=line,
                hovertemplate=f"{looks[name]['label']}: %{{y:.3~g}} at %{{x:.0%}}<extra></extra>",
                row=1,
                col=column,
            )
    fig.update_xaxes(title="share of the run", tickformat=".0%")
    for column in (1, 2):
        fig.update_yaxes(type="log", exponentformat="power", dtick=1, row=1, col=column)
    return apply_layout(fig, 380, legend={"orientation": "h", "y": -0.25, "yanchor": "top", "x": 0})
