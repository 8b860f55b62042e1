"""Figures of a run. The page's JavaScript animates the traces whose `meta` is `trail`, `head` or `now`."""

from typing import Any

import numpy as np
from plotly import graph_objects as go

from gradprix.show.style import COLOURS, SYMBOLS, apply_layout, powers, rounded

from .figure_elements import (
    HEIGHT,
    LEGEND,
    DisplayScale,
    contour_plot,
    current_points_style,
    full_path_style,
    line_style,
    minima,
    optimizer_style,
    trail_style,
    truncate_path,
    with_box_axes,
    xy,
)
from .trajectories import LATTICE, EndPoints, Run

SOLID = [[0.0, "#5c6670"], [1.0, "#c9d1d8"]]
LEAST = 1e-12
"""Floor of the logarithmic loss axis, relative to the initial loss."""


def contour(run: Run, t: int) -> go.Figure:
    """Plot the contours of the surface with the trajectories of all optimizers.

    Args:
        run: trajectories.
        t: current step, at which the points are marked.
    """
    fig = go.Figure([contour_plot(run.landscape), *minima(run.landscape)])
    paths = {name: xy(run.points[:, i]) for i, name in enumerate(run.names)}
    fig.add_traces([go.Scatter(**full_path_style(name), **path) for name, path in paths.items()])
    fig.add_traces([go.Scatter(**trail_style(name), **truncate_path(path, t)) for name, path in paths.items()])
    start = {"color": "rgba(0,0,0,0)", "size": 13, "line": {"color": "#808080", "width": 2}}
    fig.add_scatter(
        x=[run.setting.start[0]],
        y=[run.setting.start[1]],
        mode="markers",
        marker=start,
        name="start",
        hoverinfo="skip",
        showlegend=False,
    )
    fig.add_scatter(
        **current_points_style(run.names),
        **xy(run.points[t]),
        hovertemplate="%{text}: %{x:.4~g}, %{y:.4~g}<extra></extra>",
    )
    return with_box_axes(
        apply_layout(fig, HEIGHT, clickanywhere=True, uirevision=run.landscape.name, hovermode="closest"),
        run.landscape.box,
    )


def relief(run: Run, t: int) -> go.Figure:
    """Plot the surface in three dimensions with the trajectories of all optimizers, marking the points at step `t`."""
    scale = DisplayScale(run.landscape, 81)
    high = scale.heights(scale.values)
    surface = go.Surface(
        x=scale.x.astype(np.float32),
        y=scale.y.astype(np.float32),
        z=high.astype(np.float32),
        customdata=scale.values.astype(np.float32),
        colorscale=SOLID,
        showscale=False,
        opacity=0.9,
        contours={
            "z": {
                "show": True,
                "width": 1,
                "color": "rgba(128,128,128,0.6)",
                "start": 0,
                "end": float(high.max()),
                "size": float(high.max() / 16) or 1.0,
            }
        },
        lighting={"ambient": 0.75, "diffuse": 0.5, "specular": 0.05},
        name="loss",
        hovertemplate="%{x:.3~g}, %{y:.3~g}: loss %{customdata:.4~g}<extra></extra>",
    )
    fig = go.Figure([surface])
    (x_low, x_high), (y_low, y_high) = run.landscape.box
    outside = (run.points < (x_low, y_low)) | (run.points > (x_high, y_high))
    points = np.where(outside.any(-1, keepdims=True), np.nan, run.points)  # clip trajectories to the surface
    lift = 0.015 * float(high.max())
    heights = scale.heights(run.heights + scale.minimum) + lift
    paths = {name: {**xy(points[:, i]), "z": rounded(heights[:, i])} for i, name in enumerate(run.names)}
    fig.add_traces([go.Scatter3d(**full_path_style(name), **path) for name, path in paths.items()])
    fig.add_traces([go.Scatter3d(**trail_style(name), **truncate_path(path, t)) for name, path in paths.items()])
    markers = current_points_style(run.names)
    markers["marker"] = {**markers["marker"], "size": 6, "symbol": [_symbol3d(name) for name in run.names]}
    fig.add_scatter3d(**markers, **xy(points[t]), z=rounded(heights[t]), hovertemplate="%{text}<extra></extra>")
    axis = {
        "gridcolor": "rgba(128,128,128,0.3)",
        "backgroundcolor": "rgba(0,0,0,0)",
        "color": "#808080",
        "showspikes": False,
    }
    scene = {
        "xaxis": {**axis, "title": {"text": "x"}, "range": [x_low, x_high]},
        "yaxis": {**axis, "title": {"text": "y"}, "range": [y_low, y_high]},
        "zaxis": {**axis, "title": {"text": "log loss"}, "showticklabels": False},
        "camera": {"eye": {"x": -1.1, "y": -1.5, "z": 1.25}},
        "aspectratio": {"x": 1.25, "y": 1.25, "z": 0.75},
    }
    apply_layout(fig, HEIGHT, scene=scene, uirevision=run.landscape.name, legend=LEGEND)
    return fig.update_layout(margin={"l": 0, "r": 0, "t": 40, "b": 0})


def losses(run: Run, t: int) -> go.Figure:
    """Plot the loss above the minimum against the step for all optimizers, marking step `t`."""
    fig = go.Figure()
    initial = float(run.heights[0].max()) if run.names else 1.0
    smallest = LEAST * initial or LEAST
    heights = np.clip(run.heights, smallest, 1e12 * (initial or 1))
    low = max(float(heights.min(initial=initial)), smallest)
    high = min(float(heights.max(initial=initial)), 1e4 * initial) or 1.0
    steps = list(range(len(heights)))
    for i, name in enumerate(run.names):
        fig.add_scatter(
            **{**full_path_style(name), "opacity": 1.0, "hoverinfo": None, "line": line_style(name, 2)},
            x=steps,
            y=rounded(heights[:, i]),
            hovertemplate=f"{name}, step %{{x}}: %{{y:.3~g}}<extra></extra>",
        )
    ends = [low / 2, high * 2]
    fig.add_scatter(
        x=[t, t],
        y=ends,
        mode="lines",
        line={"color": "#808080", "width": 1},
        meta="now",
        hoverinfo="skip",
        showlegend=False,
    )
    fig.add_scatter(**current_points_style(run.names), x=[t] * len(run.names), y=rounded(heights[t]), hoverinfo="skip")
    span = np.log10(ends)
    fig.update_yaxes(type="log", range=span.tolist(), title="loss above the minimum", **powers(*span))
    if span[1] - span[0] > 8:
        fig.update_yaxes(**_every_other(*span))
    fig.update_xaxes(title="step", range=[-0.01 * run.setting.steps, 1.01 * run.setting.steps], showgrid=False)
    apply_layout(fig, HEIGHT, showlegend=False, uirevision=str(run.setting), hovermode="closest")
    return fig.update_layout(margin={"l": 10, "r": 10, "t": 30, "b": 10})


def basins(end_points: EndPoints) -> go.Figure:
    """Plot a grid of starting points, coloured by the minimum that they reach.

    If the surface has no more than one minimum, they are coloured by final loss instead.
    """
    landscape = end_points.landscape
    fig = go.Figure([contour_plot(landscape)])
    data = np.column_stack([end_points.ends, end_points.heights])
    hover = (
        "from %{x:.3~g}, %{y:.3~g}<br>to %{customdata[0]:.3~g}, %{customdata[1]:.3~g}"
        "<br>%{customdata[2]:.3~g} above the minimum<extra></extra>"
    )
    if len(landscape.minima) > 1:
        for k in (*range(len(landscape.minima)), -1):
            mask = end_points.reached == k
            label = (
                "no minimum" if k < 0 else ", ".join(f"{value:.3g}".replace("-", "−") for value in landscape.minima[k])
            )
            mark = {
                "color": "#808080" if k < 0 else COLOURS[k % 6],
                "symbol": "x-thin-open" if k < 0 else SYMBOLS[k % 4],
                "size": 8,
                "opacity": 0.85,
            }
            fig.add_scatter(
                x=rounded(end_points.starts[mask, 0]),
                y=rounded(end_points.starts[mask, 1]),
                mode="markers",
                marker=mark,
                name=f"to {label}",
                customdata=data[mask],
                hovertemplate=hover,
            )
    else:
        log_heights = np.log10(np.clip(end_points.heights, LEAST, 1 / LEAST))
        low, high = np.floor(log_heights.min()), np.ceil(log_heights.max())
        fig.add_heatmap(
            x=rounded(end_points.starts[:LATTICE, 0]),
            y=rounded(end_points.starts[::LATTICE, 1]),
            z=log_heights.reshape(LATTICE, LATTICE),
            customdata=data.reshape(LATTICE, LATTICE, 3),
            hovertemplate=hover,
            colorscale="Cividis",
            reversescale=True,
            zmin=low,
            zmax=max(high, low + 1),
            opacity=0.85,
            colorbar={
                "title": {"text": "loss above the minimum", "side": "right"},
                "thickness": 12,
                **_colorbar(low, high),
            },
            name="starts",
        )
    fig.add_traces(minima(landscape))
    return with_box_axes(
        apply_layout(fig, HEIGHT, clickanywhere=True, uirevision=landscape.name, hovermode="closest"), landscape.box
    )


def _colorbar(low: float, high: float) -> dict[str, Any]:
    step = max(1, round((high - low) / 6))
    exponents = np.arange(low, high + 1, step)
    return {"tickvals": exponents.tolist(), "ticktext": [powers(n, n)["ticktext"][0] for n in exponents]}


def _every_other(low: float, high: float) -> dict[str, Any]:
    ticks = powers(low, high)
    return {name: values[:: 2 if high - low < 16 else 4] for name, values in ticks.items()}


def _symbol3d(name: str) -> str:
    symbol = str(optimizer_style(name)["symbol"])
    return "cross" if symbol == "triangle-up" else symbol
