"""Common elements of figures: contours, styles of optimizers, and export settings."""

from typing import Any

import numpy as np
from plotly import graph_objects as go

from gradprix.explain import Landscape
from gradprix.show.style import rounded, series_style

from .state import RACERS
from .trajectories import Numbers, minimum_value

CONFIG: dict[str, Any] = {
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "displaylogo": False,
    "displayModeBar": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
    "toImageButtonOptions": {"format": "png", "scale": 2},
    "scrollZoom": False,
}
GROUND = [[0.0, "rgba(128,128,128,0.0)"], [1.0, "rgba(128,128,128,0.5)"]]
"""Colour scale of contours. It is grey to keep trajectories visible, and transparent to suit light and dark pages."""
HEIGHT = 520
LEGEND = {"orientation": "h", "yanchor": "top", "y": -0.14, "x": 0, "font": {"size": 12}, "itemwidth": 40}


def optimizer_style(name: str) -> dict[str, Any]:
    """Return the colour, dash and symbol of an optimizer, which are the same in all figures."""
    return series_style(list(RACERS).index(name))


class DisplayScale:
    """Values of a surface on a grid, and the scale on which they are displayed.

    The scale is linear near the minimum and logarithmic above, to flatten steep walls.

    Args:
        landscape: surface.
        size: number of grid points per side.
    """

    def __init__(self, landscape: Landscape, size: int = 91) -> None:
        self.minimum = minimum_value(landscape)
        self.x, self.y, self.values = (np.asarray(part.numpy()) for part in landscape.grid(size))
        above = self.values - self.minimum
        self.unit = float(np.quantile(above, 0.25)) or float(above.max()) or 1.0

    def heights(self, values: Any) -> Numbers:
        """Map loss values to heights on the display scale."""
        return np.asarray(np.log1p(np.maximum(np.asarray(values) - self.minimum, 0) / self.unit))


def contour_plot(landscape: Landscape) -> go.Contour:
    """Return the contours of a surface in grey."""
    scale = DisplayScale(landscape)
    return go.Contour(
        x=scale.x.astype(np.float32),
        y=scale.y.astype(np.float32),
        z=scale.heights(scale.values).astype(np.float32),
        customdata=scale.values.astype(np.float32),
        colorscale=GROUND,
        ncontours=24,
        line={"width": 0.6, "color": "rgba(128,128,128,0.55)"},
        showscale=False,
        name="loss",
        hovertemplate="%{x:.3~g}, %{y:.3~g}: loss %{customdata:.4~g}<extra></extra>",
    )


def minima(landscape: Landscape) -> list[go.Scatter]:
    """Return markers for the minima of a surface."""
    mark = {"symbol": "x-thin", "size": 11, "line": {"color": "#808080", "width": 2}}
    return [
        go.Scatter(x=[x], y=[y], mode="markers", marker=mark, name="minimum", hoverinfo="skip", showlegend=False)
        for x, y in landscape.minima
    ]


def with_box_axes(fig: go.Figure, box: Any) -> go.Figure:
    """Set the ranges of the axes to a box, `((x low, x high), (y low, y high))`, and return the figure."""
    fig.update_xaxes(range=list(box[0]), showgrid=False, title="x")
    fig.update_yaxes(range=list(box[1]), showgrid=False, title="y")
    return fig.update_layout(legend=LEGEND, margin={"l": 10, "r": 10, "t": 30, "b": 10})


def line_style(name: str, width: float) -> dict[str, Any]:
    """Return the line style of an optimizer."""
    own = optimizer_style(name)
    return {"color": own["color"], "dash": own["dash"], "width": width}


def full_path_style(name: str) -> dict[str, Any]:
    """Return the style of an optimizer's complete trajectory, which playback does not change."""
    return {
        "mode": "lines",
        "line": line_style(name, 1.5),
        "opacity": 0.35,
        "name": name,
        "meta": "whole",
        "hoverinfo": "skip",
        "showlegend": False,
    }


def trail_style(name: str) -> dict[str, Any]:
    """Return the style of an optimizer's trajectory up to the current step."""
    return {"mode": "lines", "line": line_style(name, 3), "name": name, "meta": "trail", "hoverinfo": "skip"}


def current_points_style(names: list[str]) -> dict[str, Any]:
    """Return the style of the markers for the current points of several optimizers."""
    looks = [optimizer_style(name) for name in names]
    marker = {
        "color": [own["color"] for own in looks],
        "symbol": [own["symbol"] for own in looks],
        "size": 12,
        "line": {"color": "#ffffff", "width": 1.5},
    }
    return {"mode": "markers", "marker": marker, "text": names, "name": "now", "meta": "head", "showlegend": False}


def xy(points: Numbers) -> dict[str, Any]:
    """Return the coordinates of points, `[points, 2]`, as arguments of a trace."""
    return {"x": rounded(points[:, 0]), "y": rounded(points[:, 1])}


def truncate_path(path: dict[str, Any], t: int) -> dict[str, Any]:
    """Return the part of a trajectory up to step `t`.

    Args:
        path: coordinates of the points by axis, as returned by `xy`.
        t: step.
    """
    return {axis: values[: t + 1] for axis, values in path.items()}
