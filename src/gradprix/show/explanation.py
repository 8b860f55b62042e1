"""Explanation of one optimizer: equations, measured step response, and descent in a ravine-shaped landscape."""

from collections.abc import Mapping
from typing import Any

import torch
from plotly import graph_objects as go
from plotly.subplots import make_subplots
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gradprix.explain import (
    LANDSCAPES,
    ExplainedOptimizer,
    StepResponse,
    Trace,
    equations,
    measure_step_response,
    trace,
    tuned,
)
from gradprix.rules.gradient_preprocessing import full_tree
from gradprix.rules.ir import Hyper, walk
from gradprix.rules.notation import format_symbol

from ._templates import render
from .style import COLOURS, DASHES, apply_layout, powers, rounded

STEPS = 100
"""Number of steps of the descent in the ravine."""
BARS = "▁▂▃▄▅▆▇█"
POINTS = 48
"""Number of characters of a sparkline."""


def explained(its: ExplainedOptimizer, given: Mapping[str, Any]) -> dict[str, Any]:
    """Compute the explanation of an optimizer.

    Args:
        its: optimizer to explain.
        given: values of hyperparameters, which override the optimizer's defaults.

    Returns:
        A dictionary for `terminal` and `page`. `character` (the step response) and `trace` (the descent) are None for
        optimizers that update matrices.
    """
    rule, values = its.rule, its.rule.values(**{**its.fixed, **given})
    result = {"subject": its, "rule": rule, "values": values, "equations": equations(rule, values)}
    if rule.is_matrix_rule:
        return {**result, "character": None, "trace": None}
    ravine, own = LANDSCAPES["ravine"](), {name: value for name, value in values.items() if name != "lr"}
    lr = tuned(rule, ravine, STEPS, given=tuple(sorted(own.items())))
    return {
        **result,
        "character": measure_step_response(rule, values),
        "trace": trace(rule, ravine, STEPS, values={**own, "lr": lr}),
        "lr": lr,
    }


def sparkline(values: torch.Tensor, points: int = POINTS) -> str:
    """Format a series as a line of block characters: a sparkline.

    The height of a block is on a logarithmic scale from the minimum to the maximum of the series.

    Args:
        values: positive values.
        points: maximum number of characters.
    """
    index = torch.linspace(0, len(values) - 1, points).round().long().unique()  # type: ignore[no-untyped-call]
    logs = values[index].clamp(min=1e-12).log()
    low, high = float(logs.min()), float(logs.max())
    if high - low < 0.02:
        return BARS[3] * len(index)
    return "".join(BARS[round(float((y - low) / (high - low)) * (len(BARS) - 1))] for y in logs)


def terminal(explanation: Mapping[str, Any]) -> RenderableType:
    """Return the explanation from `explained` as a Rich renderable for the terminal."""
    its, rule = explanation["subject"], explanation["rule"]
    table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
    for equation in explanation["equations"]:
        table.add_row(Text(equation.formula, "bold"), equation.sentence)
    parts: list[RenderableType] = [
        Text(f"{its.name}: {its.about}", "bold"),
        Text(f"{rule.relation}  Source: {rule.source}."),
        Text(),
        table,
        Text(_format_settings(explanation), "dim"),
    ]
    if (measured := explanation["character"]) is not None:
        parts += [Text(), Text("What to watch (measured on the rule itself):", "bold")]
        parts += [Text(f"  {sentence}") for sentence in measured.sentences]
        rates = measured.rates
        low, high = float(rates.min()), float(rates.max())
        span = f"{low:.3g} to {high:.3g} η" if high - low > 0.02 * high else f"{high:.3g} η throughout"
        parts += [Text(), Text(f"Effective rate under a constant gradient, steps 1 to {len(rates):,}, {span}:")]
        parts += [Text(f"  {sparkline(rates)}")]
    return Group(*parts)


def page(explanation: Mapping[str, Any]) -> str:
    """Return the explanation from `explained` as a self-contained HTML page."""
    measured, figures = explanation["character"], {}
    if measured is not None:
        figures = {"rates": rates(measured), "descent": descent(explanation["trace"])}
    settings = _format_settings(explanation)
    return render("explanation.html.jinja", **explanation, settings=settings, figures=figures, steps=STEPS)


def rates(measured: StepResponse) -> go.Figure:
    """Plot the effective learning rate under a constant gradient against the step, on logarithmic axes."""
    steps = list(range(1, len(measured.rates) + 1))
    fig = go.Figure(
        go.Scatter(x=steps, y=rounded(measured.rates.tolist()), mode="lines", line={"color": COLOURS[0], "width": 2})
    )
    low, high = float(measured.rates.clamp(min=1e-9).min().log10()), float(measured.rates.max().log10())
    middle, half = (low + high) / 2, max((high - low) / 2 * 1.15, 0.5)
    fig.update_xaxes(type="log", title="step", **powers(0, 3))
    fig.update_yaxes(
        type="log",
        title="effective rate / η",
        range=[middle - half, middle + half],
        **powers(middle - half, middle + half),
    )
    return apply_layout(fig, 320, showlegend=False)


def descent(descent_trace: Trace) -> go.Figure:
    """Plot the descent in the ravine: trajectory over contour lines, and effective learning rate of each coordinate."""
    ravine, layer = LANDSCAPES["ravine"](), descent_trace.x
    x, y, z = ravine.grid(81)
    fig = make_subplots(1, 2, column_widths=[0.55, 0.45], horizontal_spacing=0.12)
    fig.add_contour(
        x=x.tolist(),
        y=y.tolist(),
        z=[rounded(row) for row in z.sqrt().tolist()],  # equally spaced contour lines
        contours={"coloring": "lines"},
        colorscale=[[0, COLOURS[0]], [1, "rgba(128,128,128,0.35)"]],
        showscale=False,
        hoverinfo="skip",
        ncontours=16,
        row=1,
        col=1,
    )
    points = layer.points
    fig.add_scatter(
        x=rounded(points[:, 0].tolist()), y=rounded(points[:, 1].tolist()), mode="lines+markers", name="path",
        line={"color": COLOURS[1], "width": 2}, marker={"size": 4}, showlegend=False, row=1, col=1,
    )  # fmt: skip
    for i, axis in enumerate(("along", "across")):
        fig.add_scatter(
            x=list(range(1, len(layer.rates) + 1)), y=rounded(layer.rates[:, i].clamp(min=1e-9).tolist()), mode="lines",
            name=axis, line={"color": COLOURS[2 * i], "dash": DASHES[i], "width": 2}, row=1, col=2,
        )  # fmt: skip
    fig.update_yaxes(type="log", title="effective rate", row=1, col=2)
    fig.update_xaxes(title="step", row=1, col=2)
    return apply_layout(fig, 380, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0.6})


def _format_settings(explanation: Mapping[str, Any]) -> str:
    """Format the values of the hyperparameters that occur in the equations of the explained optimizer."""
    used = _used_hyperparameters(explanation)
    return "with " + ", ".join(f"{format_symbol(name)} = {value:g}" for name, value in used.items())


def _used_hyperparameters(explanation: Mapping[str, Any]) -> dict[str, float]:
    """Return the values of the hyperparameters that occur in the equations, by name."""
    rule, values = explanation["rule"], explanation["values"]
    tree = full_tree(rule).fold(values, tuple(rule.active_state(values)))
    used = {node.name for assign in tree.assigns for node in walk(assign.value) if isinstance(node, Hyper)}
    return {name: value for name, value in values.items() if name in used}
