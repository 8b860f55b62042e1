"""Visual style: colours of entries, ticks of axes, layout of figures, and the style sheet of pages."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from plotly import graph_objects as go

from gradprix.race import RaceRecord

# Okabe & Ito's colour-blind safe palette, without black and yellow, which are invisible on a dark and on a white page,
# respectively. Entries with the same colour differ in dash and symbol.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "diamond", "square", "triangle-up")
INK, GRID = "#333333", "rgba(128,128,128,0.22)"
CLEAR = "rgba(0,0,0,0)"
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'  # as in templates/page.css

# Fills are translucent, so that dark and light text on them is legible.
MARKS = {
    "wins": ("▲", "rgba(0,114,178,0.55)"),
    "slightly ahead": ("△", "rgba(0,114,178,0.25)"),
    "ties": ("=", "rgba(128,128,128,0.30)"),
    "inconclusive": ("?", "rgba(128,128,128,0.06)"),
    "slightly behind": ("▽", "rgba(213,94,0,0.25)"),
    "loses": ("▼", "rgba(213,94,0,0.55)"),
}
"""Sign and fill colour of each verdict in the matrix of comparisons. The colour carries no further information."""


def series_style(i: int) -> dict[str, str]:
    """Return the `color`, `dash` and `symbol` of the i-th series of a figure, from 0.

    Up to 96 series differ; each has six neighbours with the same dash and symbol, in other colours.
    """
    row = i // len(COLOURS)
    return {
        "color": COLOURS[i % len(COLOURS)],
        "dash": DASHES[row % len(DASHES)],
        "symbol": SYMBOLS[(row + row // len(DASHES)) % len(SYMBOLS)],
    }


Style = dict[str, str]
"""Style of an entry in figures, with the keys `label` (escaped name), `color`, `dash` and `symbol`."""


def escape_label(text: str) -> str:
    """Escape a text for a plotly label. Plotly interprets HTML tags and `&lt;` in labels, but not `&quot;`."""
    return escape(text, quote=False)


def styles(record: RaceRecord) -> dict[str, Style]:
    """Return the style of each entry by its name. It is the same in every figure of a record."""
    return {
        entry.name: {"label": escape_label(entry.name), **series_style(i)} for i, entry in enumerate(record.entries)
    }


def powers(low: float, high: float) -> dict[str, list[Any]]:
    """Return plotly ticks at the powers of ten, for a logarithmic axis from 10**low to 10**high."""
    exponents = range(math.floor(low), math.ceil(high) + 1)
    return {"tickvals": [10.0**n for n in exponents], "ticktext": [_format_power(n) for n in exponents]}


def _format_power(exponent: int) -> str:
    """Format a power of ten: `0.01` to `100` as a number, others as `10³`."""
    superscript = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{10.0**exponent:g}" if -2 <= exponent <= 2 else f"10{superscript}"


def ticks(low: float, high: float) -> dict[str, list[Any]]:
    """Return plotly ticks for a logarithmic axis from 10**low to 10**high.

    Axes of more than two decades have ticks at the powers of ten only, shorter axes also between them.
    """
    if high - low > 2:
        return powers(low, high)
    steps = (1, 2, 5) if high - low > 0.7 else (1, 1.2, 1.5, 2, 3, 4, 5, 6, 8)
    values = [step * 10.0**n for n in range(math.floor(low), math.ceil(high) + 1) for step in steps]
    return {"tickvals": values, "ticktext": [f"{value:g}" for value in values]}


def translucent(colour: str, opacity: float) -> str:
    """Convert a colour `#rrggbb` to CSS `rgba(…)` with the given opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def padded(values: Sequence[float]) -> list[float]:
    """Return the range of an axis that includes all finite values, with padding at both ends."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    pad = 0.06 * (max(finite) - min(finite)) or 0.5
    return [min(finite) - pad, max(finite) + pad]


def rounded(values: Iterable[float]) -> list[float | None]:
    """Round values to six significant digits, to keep pages small.

    Non-finite values become None, which plotly draws as a gap.
    """
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


def band(
    fig: go.Figure,
    place: Mapping[str, int],
    fill: str,
    x: Sequence[float] | None = None,
    y: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Return the plotly shape of a band that crosses a panel, below its traces.

    All shapes of a figure should be set at once, by `fig.update_layout(shapes=...)`. Plotly's `add_vrect` and
    `add_hrect` validate all earlier shapes again.

    Args:
        fig: figure with subplots.
        place: position of the panel: `row` and `col`, from 1.
        fill: CSS colour.
        x: ends of a vertical band on the horizontal axis; None for a band from edge to edge.
        y: ends of a horizontal band on the vertical axis; None for a band from edge to edge.
    """
    shape: dict[str, Any] = {"type": "rect", "fillcolor": fill, "line": {"width": 0}, "layer": "below"}
    for name, axis, ends in zip("xy", fig.get_subplot(**place), (x, y), strict=True):
        reference = axis.plotly_name.replace("axis", "")
        shape[f"{name}ref"] = f"{reference} domain" if ends is None else reference
        shape[f"{name}0"], shape[f"{name}1"] = ends or (0, 1)
    return shape


CSS = Path(__file__).with_name("templates").joinpath("page.css").read_text("utf-8")
"""Style sheet of all pages."""


def apply_layout(fig: go.Figure, height: int, **layout: Any) -> go.Figure:
    """Apply the common layout to a figure: transparent background, grey grid, and the font of the page.

    Args:
        fig: figure, which is modified.
        height: height in pixels.
        layout: further plotly layout properties.

    Returns:
        The same figure.
    """
    axis = {"automargin": True, "gridcolor": GRID, "zeroline": False, "linecolor": GRID}
    axis |= {"tickfont": {"size": 12}, "title": {"font": {"size": 13}}}
    fig.update_layout(
        template={"layout": {"xaxis": axis, "yaxis": axis}},  # much faster than updating each axis
        height=height,
        margin={"l": 10, "r": 25, "t": 40, "b": 15},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"family": FONT, "size": 13, "color": INK},
        hoverlabel={"align": "left", "font": {"family": FONT, "size": 13}},
        modebar={"bgcolor": CLEAR, "color": "#8a949e", "activecolor": "#0072B2"},
        **layout,
    )
    fig.update_annotations(font={"size": 13, "color": INK})
    return fig
