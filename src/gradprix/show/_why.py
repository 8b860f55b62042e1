"""Diagnosis section of a report: measurements, supported conclusions, and a figure of the updates."""

from collections.abc import Sequence
from html import escape

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from gradprix.race import RaceRecord
from gradprix.race.diagnosis_record import Measurement, MeasurementKind
from gradprix.text.diagnosis import format_finding

from . import _page
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


def diagnosis_section(record: RaceRecord) -> str:
    """Return the table and conclusions of the diagnosis; empty if the race was not explained."""
    if record.diagnosis is None:
        return ""
    entries = record.diagnosis.entries
    kinds = [kind for kind in COLUMNS if any(m.kind == kind for e in entries.values() for m in e.measurements)]
    rows = "".join(_row(entry.name, entries[entry.name].measurements, kinds) for entry in record.ranking)
    read = "; ".join(f"<b>{COLUMNS[kind][0]}</b>: {COLUMNS[kind][1]}" for kind in kinds)
    text = (
        f"Measured in {record.diagnosis.seconds:,.0f} s on {record.diagnosis.runs} final runs of each, trained once "
        "more, over the middle half of training. In brackets: 95&nbsp;% intervals. A number is put into words, and "
        "printed bold, only where its whole interval is past a border fixed beforehand; the rest is not clear. "
        f"{read}."
    )
    table = _page.table(["entry", *(COLUMNS[kind][0] for kind in kinds)], f"<tbody>{rows}</tbody>")
    items = "".join(
        f"<li><b>{escape(entry.name)}</b> {escape(format_finding(m, entry.final.divergence_steps))} "
        f"{COLUMNS[m.kind][0].capitalize()}: {_number(m)}.</li>"
        for entry in record.ranking
        for m in entries[entry.name].measurements
        if m.finding
    )
    clear = f"<ul>{items}</ul>" if items else "<p>No clear cause found.</p>"
    return f'{clear}<p class="note">{text}</p>{table}'


def _row(name: str, measurements: Sequence[Measurement], kinds: list[MeasurementKind]) -> str:
    by_kind = {measurement.kind: measurement for measurement in measurements}
    cells = "".join(f"<td>{_number(by_kind[kind]) if kind in by_kind else '-'}</td>" for kind in kinds)
    return f"<tr><td><b>{escape(name)}</b></td>{cells}</tr>"


def _number(measurement: Measurement) -> str:
    """Format an estimate with its interval; None stands for an infinite or unknown value."""
    is_clear, bounds = measurement.finding is not None, (measurement.low, measurement.high)
    if measurement.kind is MeasurementKind.NOISE_SCALE and is_clear and measurement.high is None:
        return f"<b>above {measurement.low:.2g}</b>" if measurement.low else "<b>no signal found</b>"
    if measurement.number is None or None in bounds:
        return "not clear"
    number, low, high = (f"{x:.2g}".replace("-", "−") for x in (measurement.number, *bounds))
    number = f"<b>{number}</b>" if is_clear else number
    return number if low == high else f'{number} <span class="soft">({low} to {high})</span>'


def moves(record: RaceRecord) -> go.Figure:
    """Plot effective learning rate, update-to-weight ratio and cosine during training, one line per entry."""
    assert record.diagnosis is not None
    entries, looks = record.diagnosis.entries, styles(record)
    fig = make_subplots(1, 3, subplot_titles=list(PANELS.values()), horizontal_spacing=0.07)
    for entry in record.ranking:
        name, own = entry.name, entries[entry.name].updates
        line = {"color": looks[name]["color"], "dash": looks[name]["dash"], "width": 1.8}
        if not own.step:
            continue  # every examined run diverged
        last = max(own.step)
        for column, panel in enumerate(PANELS, start=1):
            fig.add_scatter(
                x=[round(step / last, 4) for step in own.step],
                y=getattr(own, panel),
                mode="lines",
                name=escape(name),
                legendgroup=name,
                showlegend=column == 1,
                line=line,
                hovertemplate=f"{escape(name)}: %{{y:.3~g}} at %{{x:.0%}}<extra></extra>",
                row=1,
                col=column,
            )
    fig.update_xaxes(title="share of the run", tickformat=".0%")
    for column in (1, 2):
        fig.update_yaxes(type="log", exponentformat="power", dtick=1, row=1, col=column)
    return apply_layout(fig, 380, legend={"orientation": "h", "y": -0.25, "yanchor": "top", "x": 0})


def read_moves(record: RaceRecord) -> str:
    """Return the caption of `moves`."""
    assert record.diagnosis is not None
    return (
        f"Over the course of training, medians of {record.diagnosis.runs} runs. Left: how long an update is for its "
        "gradient, with the schedule in it. Middle: how long it is for the weights it moves. Right: how straight it "
        "goes down the gradient of its batch: 1 is straight down, 0 is across, as where momentum or a rate for each "
        "weight turns it."
    )
