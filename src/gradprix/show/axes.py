"""Axes of figures: ticks, and names beside them."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from .figure import tag
from .lettering import MAX_NAME, clean, fit, text_width


def percent_axis(axis: Axis, is_percent: bool) -> None:
    """Write a percent sign after each tick label of an axis, if its values are percentages."""
    if is_percent:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}\u2009%"))


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Set the ticks of a logarithmic axis from 10**low to 10**high.

    Axes of more than two decades have ticks at the powers of ten only, shorter axes also between them.
    """
    steps = (1,) if high - low > 2 else (1, 2, 5) if high - low > 0.7 else (1, 1.2, 1.5, 2, 3, 4, 5, 6, 8)
    exponents = range(math.floor(low), math.ceil(high) + 1)
    values = [step * 10.0**n for n in exponents for step in steps if low <= math.log10(step) + n <= high]
    axis.set_major_locator(FixedLocator(values))
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_tick(value)))
    axis.set_minor_locator(NullLocator())


def format_tick(value: float) -> str:
    """Format a tick: `0.01` to `1000` as a number, other powers of ten as `10³`."""
    if 0.01 <= value < 10_000 or not value:
        return f"{value:g}"
    exponent = math.floor(math.log10(value) + 1e-9)
    power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    factor = f"{value / 10.0**exponent:.3g}"
    return power if factor == "1" else f"{factor}·{power}"


def label_width(names: Iterable[str], weight: str = "normal") -> float:
    """Return the width that names beside the axes need, in pixels: names wider than `MAX_NAME` are shortened."""
    return min(MAX_NAME, max((text_width(clean(name), weight=weight) for name in names), default=0.0))


def write_beside(
    axes: Axes, x: float, y: float, text: str, entry: str, width: float = MAX_NAME, **properties: Any
) -> Annotation:
    """Write an optimizer's text beside the axes, and return it. If it is shortened, its whole appears at it.

    Args:
        axes: the axes.
        x: horizontal position: 0 at the left end of the axes, 1 at the right end.
        y: vertical position in data coordinates.
        text: the text.
        entry: name of the entry that it belongs to.
        width: maximum width of the text in pixels.
        properties: properties of the text.
    """
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
    short = fit(text, width, weight=properties.get("weight", "normal"))
    label = axes.annotate(short, (x, y), annotation_clip=False, **{**place, **properties})
    tag(label, entry, "" if short == clean(text) else clean(text))
    return label


def label_ends(axes: Axes, labels: Sequence[tuple[float, str, str]], gap: float = 13) -> None:
    """Write names at the right ends of lines, without overlaps, in place of a legend.

    Names that do not fit are left out, the last ones first.

    Args:
        axes: axes with final limits.
        labels: vertical position in data coordinates, name and colour of each line, most important first.
        gap: least distance of names in pixels.
    """
    bottom, top = axes.get_window_extent().y0 + 4, axes.get_window_extent().y1 - 4
    fitting = [each for each in labels if math.isfinite(each[0])][: max(1, int((top - bottom) // gap) + 1)]
    left = axes.get_xlim()[0]
    ends = [float(axes.transData.transform((left, y))[1]) for y, _, _ in fitting]
    order = sorted(range(len(ends)), key=ends.__getitem__)
    places = spread([min(max(ends[i], bottom), top) for i in order], gap, bottom, top)
    for i, place in zip(order, places, strict=True):
        y = float(axes.transData.inverted().transform((bottom, place))[1])
        write_beside(axes, 1, y, fitting[i][1], fitting[i][1], xytext=(6, 0), color=fitting[i][2])


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move ascending positions apart, as little as possible, so that neighbours keep a distance.

    Args:
        places: positions in ascending order.
        gap: least distance.
        low: lower end of the available range.
        high: upper end.
    """
    blocks: list[list[float]] = []  # [centre, number of positions]
    for place in places:
        blocks.append([place, 1])
        while True:
            half = gap * (blocks[-1][1] - 1) / 2
            blocks[-1][0] = min(max(blocks[-1][0], low + half), max(high - half, low + half))
            if len(blocks) < 2 or blocks[-1][0] - blocks[-2][0] >= gap * (blocks[-1][1] + blocks[-2][1]) / 2:
                break
            (first, m), (second, n) = blocks.pop(-2), blocks.pop()
            blocks.append([(m * first + n * second) / (m + n), m + n])
    return [centre + gap * (i - (count - 1) / 2) for centre, count in blocks for i in range(int(count))]
