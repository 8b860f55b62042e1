"""Figure of one step, with arrows for gradient, momentum and update, and squares for second-moment estimates."""

from typing import Any

import numpy as np
from plotly import graph_objects as go

from gradprix.explain import Landscape
from gradprix.rules.notation import format_symbol
from gradprix.show.style import COLOURS, apply_layout, rounded

from .figure_elements import HEIGHT, LEGEND, contour_plot, minima, optimizer_style
from .step_trace import Step
from .trajectories import Numbers

LONGEST = 0.55
"""Length of the longest arrow that is not to scale, as a fraction of half the window's width."""
STEPS_SEEN = 2.5
"""Minimum distance from the point to the edge of the window, in units of the update's length."""


def arrows(
    landscape: Landscape, name: str, path: Numbers, step: Step, kinds: dict[str, tuple[str, int]], near: bool = True
) -> go.Figure:
    """Plot a step: the point, its negative gradient, the state of the optimizer, and the update.

    The update is drawn to scale. Gradients, their means and their root mean squares share another scale, on which the
    longest arrow has a fixed length.

    Args:
        landscape: surface.
        name: name of the optimizer.
        path: all points of the descent, `[steps + 1, 2]`.
        step: step to draw.
        kinds: kind and power of each state variable of the rule, as returned by `classify_state`.
        near: show a window around the point whose size is proportional to the step, instead of the whole surface.
    """
    centre, radius = window(landscape, step, near)
    box = tuple((float(c - 1.7 * radius), float(c + 1.7 * radius)) for c in centre)
    fig = go.Figure(
        [contour_plot(landscape.change(box=box, minima=())), *minima(landscape)]
    )  # contours relative to the lowest point in the window
    _draw_path(fig, name, path, step.t)
    _draw_state(fig, step, kinds, LONGEST * radius)
    own = optimizer_style(name)
    update = step.after - step.x
    _draw_arrow(fig, step.x, update, update, "update, to scale", COLOURS[1], "solid", 4)
    mark = {"color": own["color"], "symbol": own["symbol"], "size": 13, "line": {"color": "#ffffff", "width": 1.5}}
    fig.add_scatter(
        x=[step.x[0]],
        y=[step.x[1]],
        mode="markers",
        marker=mark,
        name="here",
        showlegend=False,
        hovertemplate="%{x:.4~g}, %{y:.4~g}<extra></extra>",
    )
    apply_layout(fig, HEIGHT, legend={**LEGEND, "y": -0.18}, hovermode="closest")
    fig.update_xaxes(range=[centre[0] - radius, centre[0] + radius], showgrid=False, title="x")
    # Equal scales on both axes, so that gradients are perpendicular to contour lines.
    fig.update_yaxes(
        range=[centre[1] - radius, centre[1] + radius], showgrid=False, title="y", scaleanchor="x", constrain="range"
    )
    return fig.update_layout(margin={"l": 10, "r": 10, "t": 30, "b": 10})


def _draw_path(fig: go.Figure, name: str, path: Numbers, t: int) -> None:
    """Draw the complete path faintly, and on top of it the path up to step `t`."""
    own = optimizer_style(name)
    for points, opacity, width in ((path, 0.35, 1.5), (path[:t], 1.0, 2.5)):
        line = {"color": own["color"], "dash": own["dash"], "width": width}
        fig.add_scatter(
            x=rounded(points[:, 0]),
            y=rounded(points[:, 1]),
            mode="lines",
            line=line,
            opacity=opacity,
            name=name,
            hoverinfo="skip",
            showlegend=False,
        )


def _draw_state(fig: go.Figure, step: Step, kinds: dict[str, tuple[str, int]], longest: float) -> None:
    """Draw the gradient and its running means as arrows, and root mean squares of gradients as squares.

    All have the same scale, on which the longest has length `longest`. Means that do not have the units of a gradient
    are drawn with a fixed length, which shows their direction only.
    """
    vectors = {"−g, steepest descent": -step.g}
    vectors |= {
        f"−{format_symbol(key)}, running mean": -step.state[key] for key, kind in kinds.items() if kind == ("mean", 1)
    }
    sides = {
        f"√{format_symbol(key)}" if power == 2 else format_symbol(key): np.abs(step.state[key]) ** (1 / power)
        for key, (kind, power) in kinds.items()
        if kind == "size" and power
    }
    lengths = [float(np.linalg.norm(v)) for v in vectors.values()] + [float(side.max()) for side in sides.values()]
    scale = longest / (max(lengths, default=0.0) or 1.0)
    for i, (label, side) in enumerate(sides.items()):
        _draw_squares(fig, step.x, side * scale, side, label, "dot" if i else "solid")
    signs = {
        f"−{format_symbol(key)}, direction only": -step.state[key] for key, kind in kinds.items() if kind == ("mean", 0)
    }
    for i, (label, vector) in enumerate(vectors.items()):
        colour, dash = (COLOURS[2], "solid") if not i else (COLOURS[3], "dash" if i == 1 else "dot")
        _draw_arrow(fig, step.x, vector * scale, vector, label, colour, dash)
    for label, vector in signs.items():
        shown = vector / (np.linalg.norm(vector) or 1) * 0.5 * longest
        _draw_arrow(fig, step.x, shown, vector, label, COLOURS[3], "dot")


def window(landscape: Landscape, step: Step, near: bool) -> tuple[Numbers, float]:
    """Return the centre and the half width of the window.

    If `near`, the centre is the point and the half width is a power of two, so that it seldom changes from step to
    step. Otherwise, or if the step is not finite, the window is the box of the landscape.
    """
    box = np.asarray(landscape.box)
    widest = float((box[:, 1] - box[:, 0]).max()) / 2
    length = float(np.linalg.norm(step.after - step.x))
    if not near or not np.isfinite([*step.x, length]).all() or abs(step.x).max() > 1e6:
        return box.mean(1), widest
    half_width = 2.0 ** np.ceil(np.log2(max(STEPS_SEEN * length, 1e-9 * widest)))
    return step.x, min(float(half_width), 2 * widest)


def _draw_arrow(
    fig: go.Figure, at: Numbers, by: Numbers, true: Numbers, label: str, colour: str, dash: str, width: float = 3
) -> None:
    if not np.isfinite(by).all():
        return
    end = at + by
    x, y = (f"{value:.4g}".replace("-", "−") for value in true)
    fig.add_scatter(
        x=[float(at[0]), float(end[0])],
        y=[float(at[1]), float(end[1])],
        mode="lines+markers",
        line={"color": colour, "dash": dash, "width": width},
        marker={
            "symbol": "arrow",
            "angleref": "previous",
            "size": [0, 11 + width],
            "color": colour,
            "opacity": 1,
            "line": {"width": 0},
        },
        name=label,
        hovertemplate=f"{label}: {x}, {y}<extra></extra>",
    )


def _draw_squares(fig: go.Figure, at: Numbers, sides: Numbers, true: Numbers, label: str, dash: str) -> None:
    """Draw a square per coordinate beside the point.

    Args:
        fig: figure to draw on.
        at: the point, `[2]`.
        sides: side of each square, on the scale of the figure, `[2]`.
        true: side of each square without scaling, `[2]`.
        label: name of the squares in the legend.
        dash: dash of the outlines.
    """
    if not np.isfinite(sides).all():
        return
    (x, y), (a, b) = at, sides
    outlines: list[tuple[list[Any], list[Any], str]] = [
        ([x, x + a, x + a, x, x], [y, y, y - a, y - a, y], f"{label} in x: {true[0]:.4g}"),
        ([x, x - b, x - b, x, x], [y, y, y + b, y + b, y], f"{label} in y: {true[1]:.4g}"),
    ]
    for i, (xs, ys, hover) in enumerate(outlines):
        line = {"color": COLOURS[5], "width": 1.5, "dash": dash}
        fig.add_scatter(
            x=xs,
            y=ys,
            mode="lines",
            line=line,
            fill="toself",
            fillcolor="rgba(86,180,233,0.18)",
            name=f"squares with side {label}",
            legendgroup=label,
            showlegend=not i,
            text=hover,
            hoveron="fills",
            hoverinfo="text",
        )
