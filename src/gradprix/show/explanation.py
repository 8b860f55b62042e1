"""Explanation of one optimizer: equations, measured step response, and descent in a ravine-shaped landscape."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from matplotlib.axes import Axes
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from gradprix.explain import (
    LANDSCAPES,
    ExplainedOptimizer,
    Landscape,
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
from gradprix.text.units import format_quantity

from ._svg import GREY, INK
from ._templates import render
from .axes import format_tick, label_ends, log_ticks
from .figure import LINESTYLES, Chart, Panel
from .palette import colour

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
    lines: list[RenderableType] = []
    for equation in explanation["equations"]:
        lines += [Text(equation.formula, "bold"), Padding(Text(equation.sentence), (0, 0, 0, 4))]
    parts: list[RenderableType] = [
        Text(f"{its.name}: {its.about}", "bold"),
        Text(f"{rule.relation}  Source: {rule.source}."),
        Text(),
        *lines,
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
        name = explanation["subject"].name
        figures = {
            "rates": rates(name, measured),
            "descent": descent(name, explanation["trace"], explanation["lr"]),
        }
    settings = _format_settings(explanation)
    return render("explanation.html.jinja", **explanation, settings=settings, figures=figures)


def rates(name: str, measured: StepResponse) -> Chart:
    """Draw the effective learning rate under a constant gradient against the step, on logarithmic axes."""
    first, last = (f"{float(rate):.3g} η" for rate in (measured.rates[0], measured.rates[-1]))
    change = f"stays at {first}" if first == last else f"goes from {first} to {last}"
    title = f"Under a constant gradient, the effective learning rate {change} in {len(measured.rates):,} steps."
    panel = Panel(partial(_draw_rates, name, measured.rates), "effective learning rate, in units of η", 400, 220)
    return Chart("rates", title, (panel,))


def _draw_rates(name: str, values: torch.Tensor, axes: Axes) -> None:
    """Draw the rates of an optimizer, on a vertical axis of one decade at least."""
    logs = values.clamp(min=1e-9).log10()
    low, high = float(logs.min()), float(logs.max())
    middle, half = (low + high) / 2, max((high - low) / 2 * 1.15, 0.5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(1, len(values))
    axes.set_ylim(10 ** (middle - half), 10 ** (middle + half))
    log_ticks(axes.xaxis, 0, math.log10(len(values)))
    log_ticks(axes.yaxis, middle - half, middle + half)
    axes.set_xlabel("step")
    axes.plot(range(1, len(values) + 1), values.tolist(), color=colour(name))


def descent(name: str, descent_trace: Trace, lr: float) -> Chart:
    """Draw the descent in the ravine: trajectory over contour lines, and effective learning rate of each coordinate."""
    ravine = LANDSCAPES["ravine"]()
    first, last = (float(ravine.value(descent_trace.x.points[i])) for i in (0, -1))
    title = (
        f"In {STEPS} steps in a ravine, at the learning rate that ends lowest there ({lr:g}), the loss falls from "
        f"{format_quantity(first)} to {format_quantity(last)}."
    )
    panels = (
        Panel(partial(_draw_trajectory, name, ravine, descent_trace.x.points), "trajectory"),
        Panel(
            partial(_draw_coordinate_rates, name, descent_trace), "effective learning rate", 400, 300, (56, 64, 30, 44)
        ),
    )
    return Chart("way", title, panels, 2)


def _draw_trajectory(name: str, landscape: Landscape, points: torch.Tensor, axes: Axes) -> None:
    """Draw a trajectory over the contour lines of a landscape."""
    x, y, z = landscape.grid(81)
    axes.grid(visible=False)
    axes.contour(x, y, z.sqrt(), 16, colors=GREY, linewidths=0.8, alpha=0.6)  # of the root: equally spaced lines
    axes.plot(points[:, 0], points[:, 1], "o-", ms=4, mew=0, color=colour(name))
    axes.plot(points[:1, 0], points[:1, 1], "o", ms=9, mfc="none", mec=INK)
    axes.set_xlabel("along the ravine")
    axes.set_ylabel("across")


def _draw_coordinate_rates(name: str, descent_trace: Trace, axes: Axes) -> None:
    """Draw the effective learning rate of both coordinates against the step."""
    values = descent_trace.x.rates.clamp(min=1e-9)
    finite = values[values.isfinite()].log10()
    low, high = float(finite.min()) - 0.1, float(finite.max()) + 0.1
    axes.set_yscale("log")
    axes.set_ylim(10**low, 10**high)
    log_ticks(axes.yaxis, low, high)
    axes.set_xlim(1, len(values))
    axes.set_xlabel("step")
    ends = []
    for direction, dash, series in zip(("along", "across"), ("solid", "dashed"), values.T.tolist(), strict=True):
        axes.plot(range(1, len(series) + 1), series, color=colour(name), ls=LINESTYLES[dash])
        ends.append((series[-1], direction, colour(name)))
    label_ends(axes, ends)


def _format_settings(explanation: Mapping[str, Any]) -> str:
    """Format the values of the hyperparameters that occur in the equations of the explained optimizer."""
    used = _used_hyperparameters(explanation)
    return "with " + ", ".join(f"{format_symbol(name)} = {_format_value(value)}" for name, value in used.items())


def _format_value(value: float) -> str:
    return format_tick(value) if 0 < abs(value) < 1e-4 else f"{value:g}"


def _used_hyperparameters(explanation: Mapping[str, Any]) -> dict[str, float]:
    """Return the values of the hyperparameters that occur in the equations, by name."""
    rule, values = explanation["rule"], explanation["values"]
    tree = full_tree(rule).fold(values, tuple(rule.active_state(values)))
    used = {node.name for assign in tree.assigns for node in walk(assign.value) if isinstance(node, Hyper)}
    return {name: value for name, value in values.items() if name in used}
