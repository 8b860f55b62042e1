"""Visual style: colours of entries, ticks of axes, and the style sheet of pages."""

import math
from collections.abc import Iterable, Sequence
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
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

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
"""Colour, dash and symbol of an entry."""


def styles(record: RaceRecord) -> dict[str, Style]:
    """Return the colour, dash and symbol of each entry, the same in every figure."""
    return {
        entry.name: {
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


def padded(values: Sequence[float]) -> list[float]:
    """Return a range that includes all finite values, with padding."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    pad = 0.06 * (max(finite) - min(finite)) or 0.5
    return [min(finite) - pad, max(finite) + pad]


def rounded(values: Iterable[float]) -> list[float | None]:
    """Round values to six significant digits, to keep pages small; non-finite values become None, a gap."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


CSS = """
:root { --ink: #1d2328; --soft: #5b6670; --line: #dfe3e7; --page: #ffffff; --panel: #f4f6f8; --accent: #0072b2;
  --warn: #a64b00; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --soft: #9ba7b2; --line: #333b43; --page: #14181c; --panel: #1e242a; --accent: #6cb8ea;
    --warn: #f0a050; }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.6 FONT; }
main { max-width: 1000px; margin: 0 auto; padding: 1.2rem 1.5rem 5rem; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .875rem; padding-bottom: .8rem;
  border-bottom: 1px solid var(--line); }
.gallery { display: flex; flex-wrap: wrap; gap: 1rem; }
.made { margin: 0; } .made img { width: 220px; image-rendering: pixelated; display: block; }
.soft { color: var(--soft); }
nav b { margin-right: auto; letter-spacing: .02em; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -.015em; margin: 2.4rem 0 .3rem; }
h2 { font-size: 1.35rem; line-height: 1.3; letter-spacing: -.01em; margin: 3.6rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 .3rem; }
p, ul, dl { max-width: 46rem; margin: .5rem 0; }
ul { padding-left: 1.2rem; }
li { margin: .25rem 0; }
dt { font-weight: 600; margin-top: .7rem; }
dd { margin: 0; }
.about, .note, figcaption { color: var(--soft); }
.note, figcaption { font-size: .9rem; line-height: 1.5; }
figcaption { max-width: 46rem; margin-bottom: .6rem; }
.answer { border-left: 4px solid var(--accent); background: var(--panel); border-radius: 0 8px 8px 0;
  padding: 1.1rem 1.4rem; margin: 1.6rem 0 1.2rem; }
.answer p { max-width: none; }
.answer .first { font-size: 1.3rem; line-height: 1.4; font-weight: 600; margin-top: 0; }
.warn { border-left: 4px solid var(--warn); padding: .1rem 0 .1rem 2.2rem; }
figure { margin: 0; }
.wide { overflow-x: auto; }
.code { position: relative; margin: .8rem 0; }
pre { margin: 0; padding: .75rem 5.2rem .75rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere;
  background: var(--page);
  border: 1px solid var(--line); border-radius: 6px; }
pre, code, td.code-line { font: .875rem/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono",
  monospace; }
code { overflow-wrap: anywhere; }
.code button { position: absolute; top: .5rem; right: .5rem; font: inherit; font-size: .8rem; padding: .15rem .6rem;
  color: var(--soft); background: var(--panel); border: 1px solid var(--line); border-radius: 5px; cursor: pointer; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--soft); font-size: .82rem; line-height: 1.3; vertical-align: bottom; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; }
.numbers td { white-space: nowrap; }
.numbers th:last-child, .numbers td:last-child { padding-right: 0; }
.numbers th:nth-child(n+3), .numbers td:nth-child(n+3) { text-align: right; }
tbody, thead { border-bottom: 1px solid var(--line); }
td.code-line { color: var(--soft); padding-top: 0; font-size: .8rem; }
.flag { color: var(--warn); font-weight: 600; }
.js-plotly-plot text { fill: var(--ink) !important; }
.js-plotly-plot .hoverlayer text { fill: var(--page) !important; }
.js-plotly-plot .hoverlayer path { fill: var(--ink) !important; stroke: var(--ink) !important; }
.js-plotly-plot .shapelayer path[style*="51, 51, 51"] { stroke: var(--ink) !important; }
.js-plotly-plot .updatemenu-item-rect { fill: var(--page) !important; }
.js-plotly-plot .updatemenu-item-rect[style*="244, 250, 255"] { fill: var(--line) !important; }
@media print {
  nav, .code button, .modebar { display: none !important; }
  main { max-width: none; padding: 0; }
  body { font-size: 11pt; }
  h2 { break-after: avoid; }
  figure, .answer, tbody { break-inside: avoid; }
}
""".replace("FONT", FONT)


def apply_layout(fig: go.Figure, height: int, **layout: Any) -> go.Figure:
    """Apply the common layout: transparent background, grey grid, and the fonts of the page."""
    fig.update_layout(
        template="none",
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
    axis = {"automargin": True, "gridcolor": GRID, "zeroline": False, "linecolor": GRID}
    for update in (fig.update_xaxes, fig.update_yaxes):
        update(tickfont={"size": 12}, title={"font": {"size": 13}}, **axis)
    return fig
