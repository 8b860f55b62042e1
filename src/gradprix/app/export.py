"""Export of figures: their data as CSV, and the figures as self-contained HTML pages."""

import csv
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from dash import ALL, Dash, Input, Output, ctx
from dash import State as Held
from dash.exceptions import PreventUpdate
from plotly import graph_objects as go

from . import figures
from .figure_elements import CONFIG, HEIGHT, xy
from .landscape_page import stage
from .state import State
from .trajectories import run, run_from_grid
from .url_query import read, write

FRAMES = 200
"""Maximum number of animation frames, to limit the size of the page."""


def rows(what: str, state: State) -> Iterator[list[Any]]:
    """Yield the data of a figure as rows of a table; the first row holds the column names.

    Args:
        what: id of the figure: `stage` or `losses`.
        state: state of the app.
    """
    if what == "stage" and state.view == "starts":
        racer = state.selected_racer
        end_points = run_from_grid(state.setting, racer)
        yield ["optimizer", "learning_rate", "start_x", "start_y", "end_x", "end_y", "above_lowest", "minimum"]
        for start, end, height, reached in zip(
            end_points.starts, end_points.ends, end_points.heights, end_points.reached, strict=True
        ):
            yield [racer.name, end_points.rate, *start, *end, height, reached]
    else:
        descent = run(state.setting)
        yield ["step", "optimizer", "learning_rate", "x", "y", "above_lowest"]
        for t in range(len(descent.points)):
            for i, name in enumerate(descent.names):
                yield [t, name, descent.rates[i], *descent.points[t, i], descent.heights[t, i]]


def as_csv(what: str, state: State) -> str:
    """Return the data of a figure as CSV.

    For the arguments see `rows`.
    """
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows(what, state))
    return buffer.getvalue()


def as_page(what: str, state: State) -> str:
    """Return a figure as a self-contained HTML page.

    A contour plot is animated. For the arguments see `rows`.
    """
    if what == "losses":
        fig = figures.losses(run(state.setting), state.setting.steps)
    else:
        fig = animated(stage(state), state) if state.view == "contour" else stage(state)
    fig.update_layout(
        paper_bgcolor="#ffffff",
        title={
            "text": f"gradprix app, {write(state) or 'initial state'}",
            "font": {"size": 11},
            "x": 0.01,
            "y": 0.01,
            "yanchor": "bottom",
        },
    )
    html: str = fig.to_html(config=CONFIG, include_plotlyjs=True)
    return html


def animated(fig: go.Figure, state: State) -> go.Figure:
    """Add playback to a contour plot.

    The trajectories are static, and only the markers of the current points move.
    """
    points = run(state.setting).points
    heads = next(i for i, trace in enumerate(fig.data) if trace.meta == "head")
    frames = sorted({round(t) for t in np.linspace(0, len(points) - 1, min(FRAMES, len(points)))})
    fig.frames = [go.Frame(name=str(t), data=[{"type": "scatter", **xy(points[t])}], traces=[heads]) for t in frames]
    moving = {"frame": {"duration": 40, "redraw": False}, "transition": {"duration": 0}, "fromcurrent": True}
    still = {"frame": {"duration": 0, "redraw": False}, "mode": "immediate"}
    buttons = [
        {"label": "▶", "method": "animate", "args": [None, moving]},
        {"label": "❚❚", "method": "animate", "args": [[None], still]},
    ]
    steps = [{"label": str(t), "method": "animate", "args": [[str(t)], still]} for t in frames]
    place = {"x": 0.0, "y": -0.12, "xanchor": "left", "yanchor": "top"}
    fig.update_layout(
        updatemenus=[{"type": "buttons", "direction": "left", "buttons": buttons, "showactive": False, **place}],
        sliders=[
            {
                "steps": steps,
                "active": len(frames) - 1,
                "x": 0.12,
                "y": -0.1,
                "len": 0.88,
                "currentvalue": {"prefix": "step "},
            }
        ],
    )
    return fig.update_layout(height=HEIGHT + 120, margin={"b": 130}, autosize=True)


def connect(app: Dash) -> None:
    """Register the callback that handles all export buttons."""

    @app.callback(
        Output("download", "data"),
        Input({"type": "save", "what": ALL, "form": ALL}, "n_clicks"),
        Held("state", "data"),
        prevent_initial_call=True,
    )
    def save(clicks: list[int | None], address: str | None) -> dict[str, Any]:
        if not any(clicks) or not isinstance(ctx.triggered_id, dict):
            raise PreventUpdate
        what, form, state = ctx.triggered_id["what"], ctx.triggered_id["form"], read(address or "")
        export = {"csv": as_csv, "html": as_page}[form]
        mime_type = {"csv": "text/csv", "html": "text/html"}[form]
        return {"content": export(what, state), "filename": f"gradprix-{what}.{form}", "type": mime_type}
