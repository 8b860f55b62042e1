"""Diagnosis section of a report: measurements, supported conclusions, and a figure of the updates."""

from html import escape
from typing import Any

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from . import _page
from ._page import Record, ranked
from .style import apply_layout, styles

COLUMNS = {
    "steps": ("steps", "how far a step goes: 0.5 is the bottom of the parabola along it, above 1 the loss would rise"),
    "edge": ("sharpness", "the largest curvature as the rule sees it, over where it ceases to settle, which is 1"),
    "noise": ("noise scale", "in batches of its own size: many times more, and a step is mostly noise"),
    "rate": ("rate left", "the late effective rate over the early one, the schedule taken out"),
    "hard": ("hardest tenth", "how much of the step goes to them, in units of what the plain gradient gives"),
    "rare": ("rare classes", "likewise"),
    "diverged": ("diverged", "the share of final runs"),
}
"""Label and interpretation of each measurement."""
PANELS = {"rate": "effective rate ‖u‖ / ‖g‖", "ratio": "update to weights ‖u‖ / ‖x‖", "cosine": "cosine of u and −g"}


def diagnosis_section(record: Record) -> str:
    """Return the table and conclusions of the diagnosis; empty if the race was not explained."""
    if "why" not in record:
        return ""
    entries = record["why"]["entries"]
    kinds = [kind for kind in COLUMNS if any(r["kind"] == kind for e in entries.values() for r in e["reasons"])]
    rows = "".join(_row(entry["name"], entries[entry["name"]]["reasons"], kinds) for entry in ranked(record))
    read = "; ".join(f"<b>{COLUMNS[kind][0]}</b>: {COLUMNS[kind][1]}" for kind in kinds)
    text = (
        f"Measured in {record['why']['seconds']:,.0f} s on {record['why']['runs']} final runs of each, trained once "
        "more, over the middle half of training. In brackets: 95&nbsp;% intervals. A number is put into words, and "
        "printed bold, only where its whole interval is past a border fixed beforehand; the rest is not clear. "
        f"{read}."
    )
    table = _page.table(["entry", *(COLUMNS[kind][0] for kind in kinds)], f"<tbody>{rows}</tbody>")
    clear_reasons = [
        (entry["name"], r) for entry in ranked(record) for r in entries[entry["name"]]["reasons"] if r["words"]
    ]
    items = "".join(
        f"<li><b>{escape(name)}</b> {escape(r['words'])} {COLUMNS[r['kind']][0].capitalize()}: {_number(r)}.</li>"
        for name, r in clear_reasons
    )
    clear = f"<ul>{items}</ul>" if clear_reasons else "<p>Nothing of this is clear for any entry.</p>"
    return f'{clear}<p class="note">{text}</p>{table}'


def _row(name: str, reasons: list[dict[str, Any]], kinds: list[str]) -> str:
    by_kind = {reason["kind"]: reason for reason in reasons}
    cells = "".join(f"<td>{_number(by_kind[kind]) if kind in by_kind else '-'}</td>" for kind in kinds)
    return f"<tr><td><b>{escape(name)}</b></td>{cells}</tr>"


def _number(reason: dict[str, Any]) -> str:
    """Format an estimate with its interval; None stands for an infinite or unknown value."""
    if reason["kind"] == "noise" and reason["words"] and reason["high"] is None:
        return f"<b>above {reason['low']:.2g}</b>" if reason["low"] else "<b>no signal found</b>"
    if reason["number"] is None or reason["low"] is None or reason["high"] is None:
        return "not clear"
    number, low, high = (f"{reason[name]:.2g}".replace("-", "−") for name in ("number", "low", "high"))
    number = f"<b>{number}</b>" if reason["words"] else number
    return number if low == high else f'{number} <span class="soft">({low} to {high})</span>'


def moves(record: Record) -> go.Figure:
    """Plot effective learning rate, update-to-weight ratio and cosine during training, one line per entry."""
    entries, looks = record["why"]["entries"], styles(record)
    fig = make_subplots(1, 3, subplot_titles=list(PANELS.values()), horizontal_spacing=0.07)
    for entry in ranked(record):
        name, own = entry["name"], entries[entry["name"]]["moves"]
        line = {"color": looks[name]["color"], "dash": looks[name]["dash"], "width": 1.8}
        if not own["step"]:
            continue  # every examined run diverged
        last = max(own["step"])
        for column, panel in enumerate(PANELS, start=1):
            fig.add_scatter(
                x=[round(step / last, 4) for step in own["step"]],
                y=own[panel],
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


def read_moves(record: Record) -> str:
    """Return the caption of `moves`."""
    return (
        f"Over the course of training, medians of {record['why']['runs']} runs. Left: how long an update is for its "
        "gradient, with the schedule in it. Middle: how long it is for the weights it moves. Right: how straight it "
        "goes down the gradient of its batch: 1 is straight down, 0 is across, as where momentum or a rate for each "
        "weight turns it."
    )
