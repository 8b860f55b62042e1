"""Visual style: colours of entries, ticks of axes, and the style sheet of pages."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from plotly import graph_objects as go

from gradprix.race import RaceRecord

# Okabe & Ito's colour-blind safe palette without black and yellow, which are invisible on a dark or a white page. When
# colours repeat, the dash and symbol differ.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "diamond", "square", "triangle-up")
INK, GRID = "#333333", "rgba(128,128,128,0.22)"
CLEAR = "rgba(0,0,0,0)"
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'  # as in templates/page.css

# Half-transparent fills work under dark and light text.
MARKS = {
    "wins": ("▲", "rgba(0,114,178,0.55)"),
    "slightly ahead": ("△", "rgba(0,114,178,0.25)"),
    "ties": ("=", "rgba(128,128,128,0.30)"),
    "inconclusive": ("?", "rgba(128,128,128,0.06)"),
    "slightly behind": ("▽", "rgba(213,94,0,0.25)"),
    "loses": ("▼", "rgba(213,94,0,0.55)"),
}
"""Sign and fill of each verdict in the matrix of comparisons; the fill repeats the sign."""


Style = dict[str, str]
"""Label (escaped), colour, dash and symbol of an entry."""


def escape_label(text: str) -> str:
    """Escape a text for plotly, which reads tags and `&lt;` in labels as HTML, but not `&quot;`."""
    return escape(text, quote=False)


def styles(record: RaceRecord) -> dict[str, Style]:
    """Return the style of each entry, the same in every figure."""
    return {
        entry.name: {
            "label": escape_label(entry.name),
            "color": COLOURS[i % len(COLOURS)],
            "dash": DASHES[i // len(COLOURS) % len(DASHES)],
            "symbol": SYMBOLS[i // len(COLOURS) % len(SYMBOLS)],
        }
        for i, entry in enumerate(record.entries)
    }


def powers(low: float, high: float) -> dict[str, list[Any]]:
    """Return ticks of a logarithmic axis at the powers of ten from 10**low to 10**high."""
    exponents = range(math.floor(low), math.ceil(high) + 1)
    return {"tickvals": [10.0**n for n in exponents], "ticktext": [_format_power(n) for n in exponents]}


def _format_power(exponent: int) -> str:
    superscript = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{10.0**exponent:g}" if -2 <= exponent <= 2 else f"10{superscript}"


def ticks(low: float, high: float) -> dict[str, list[Any]]:
    """Return ticks of a logarithmic axis from 10**low to 10**high, with intermediate ticks on short axes."""
    if high - low > 2:
        return powers(low, high)
    steps = (1, 2, 5) if high - low > 0.7 else (1, 1.2, 1.5, 2, 3, 4, 5, 6, 8)
    values = [step * 10.0**n for n in range(math.floor(low), math.ceil(high) + 1) for step in steps]
    return {"tickvals": values, "ticktext": [f"{value:g}" for value in values]}


def translucent(colour: str, opacity: float) -> str:
    """Return a colour, `#rrggbb`, with an opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def padded(values: Sequence[float]) -> list[float]:
    """Return a range that includes all finite values, with padding."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    pad = 0.06 * (max(finite) - min(finite)) or 0.5
    return [min(finite) - pad, max(finite) + pad]


def rounded(values: Iterable[float]) -> list[float | None]:
    """Round values to six significant digits, to keep pages small; non-finite values become None, a gap."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


CSS = Path(__file__).with_name("templates").joinpath("page.css").read_text("utf-8")
"""Style sheet of all pages."""


def apply_layout(fig: go.Figure, height: int, **layout: Any) -> go.Figure:
    """Apply the common layout: transparent background, grey grid, and the fonts of the page."""
    axis = {"automargin": True, "gridcolor": GRID, "zeroline": False, "linecolor": GRID}
    axis |= {"tickfont": {"size": 12}, "title": {"font": {"size": 13}}}
    fig.update_layout(
        template={"layout": {"xaxis": axis, "yaxis": axis}},  # updates of each axis take much longer
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
