"""One colour for each optimizer, the same in every figure, page and view.

Each family of optimizers has a range of hues, and its members differ in hue and lightness within it. All colours have a
contrast of at least 3:1 on white and on the dark pages, which leaves a narrow range of lightness. Therefore entries
also differ in line style and marker, which color-blind readers can use.
"""

import colorsys
import re
from collections.abc import Iterable
from typing import NamedTuple
from zlib import crc32

FAMILIES: dict[str, dict[str, str]] = {
    "gradient descent": {
        "momentum": "#3681fe",
        "nesterov": "#2f6e9e",
        "minibatch": "#7492c2",
        "sgd": "#525ad8",
        "gd": "#6976cb",
        "qhm": "#5d8094",
        "aggmo": "#7b8bf0",
        "pnm": "#009ae2",
        "accsgd": "#0c82bf",
        "lars": "#0169f9",
    },
    "adaptive learning rates": {
        "adagrad": "#aa8a69",
        "rmsprop": "#ea6a09",
        "adadelta": "#ba4907",
        "rmsprop-centered": "#95761a",
        "kate": "#b28b11",
    },
    "Adam": {
        "adam": "#32a204",
        "adamw": "#2fa094",
        "adamax": "#577251",
        "nadam": "#247905",
        "radam": "#519054",
        "amsgrad": "#0c7e79",
        "adan": "#7e9c60",
        "ademamix": "#328c18",
        "adopt": "#608470",
        "lamb": "#1ea662",
        "adabelief": "#08824a",
        "yogi": "#74967f",
        "adabound": "#5c7e34",
        "adamod": "#0d947b",
        "laprop": "#649420",
        "acprop": "#407334",
        "qhadam": "#1d755d",
        "grams": "#358264",
        "optimistic_adam": "#608d8a",
        "grokfast_adamw": "#409c70",
        "novograd": "#687e52",
    },
    "sign": {"rprop": "#ed214f", "lion": "#eb369b", "signum": "#a44975"},
    "matrices": {
        "muon": "#b238cc",
        "soap": "#c372c7",
        "shampoo": "#c060fc",
        "muon-original": "#8d53f6",
        "adafactor": "#8455a5",
        "came": "#b950a6",
    },
    "averages": {
        "schedule_free_adamw": "#1896b6",
        "schedule_free_sgd": "#237d96",
        "asgd": "#228a90",
        "schedule_free_adamw-corrected": "#0587ac",
    },
    "parameter-free": {"prodigy": "#776923", "dadapt_adam": "#899c0b", "dog": "#968844"},
}
"""Colour of each optimizer, by family."""
COLOURS = {name: colour for members in FAMILIES.values() for name, colour in members.items()}
"""Colour of each optimizer by name."""
REST = ("#b0656d", "#8a7f8f", "#7a6fb0", "#c26a4a", "#6f8a8f", "#a0729a", "#8c7a5a", "#c0567f")
"""Colours of optimizers with other names: those that users write."""
DASHES = ("solid", "dashed", "dashdot", "dotted")
MARKERS = ("circle", "diamond", "square", "triangle", "plus")
_KNOWN = re.compile(f"(?<![a-z0-9])({'|'.join(sorted(COLOURS, key=len, reverse=True))})(?![a-z0-9])")


class Style(NamedTuple):
    """Style of an optimizer in figures.

    Args:
        colour: `#rrggbb`.
        dash: line style, one of `DASHES`.
        marker: shape of its points, one of `MARKERS`.
    """

    colour: str
    dash: str
    marker: str


def colour(name: str) -> str:
    """Return the colour of an optimizer as `#rrggbb`.

    Modified optimizers, such as `ema(adamw)`, have a variant of their base's colour. Unknown names have a colour that
    depends on the name alone.

    Args:
        name: name of an optimizer or of an entry of a race, in lower or upper case.

    Example:
        >>> colour("adam"), colour("Adam")
        ('#32a204', '#32a204')
    """
    name = name.lower()
    if name in COLOURS:
        return COLOURS[name]
    base = _base(name)
    return _variant(REST[crc32(name.encode()) % len(REST)] if base is None else COLOURS[base], name)


def style(name: str) -> Style:
    """Return the colour, the line style and the marker of an optimizer."""
    name = name.lower()
    if name in COLOURS:
        number = list(COLOURS).index(name)
        return Style(COLOURS[name], DASHES[number % len(DASHES)], MARKERS[number % len(MARKERS)])
    code = crc32(name.encode()) >> 8
    return Style(colour(name), DASHES[1 + code % 3], MARKERS[code // 3 % 5])


def styles(names: Iterable[str]) -> dict[str, Style]:
    """Return the style of each entry of a race by its name.

    It is `style(name)`, except where names that `COLOURS` lacks would get the same colour, line style and marker.
    """
    chosen: dict[str, Style] = {}
    for name in names:
        own = style(name)
        free = [Style(own.colour, dash, marker) for marker in MARKERS for dash in DASHES]
        chosen[name] = next((each for each in (own, *free) if each not in chosen.values()), own)
    return chosen


def contrast(colour: str, background: str) -> float:
    """Return the contrast ratio of two colours, from 1 to 21, as defined by WCAG 2."""
    low, high = sorted((luminance(colour), luminance(background)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour `#rrggbb`, from 0 (black) to 1 (white), as defined by WCAG 2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _base(name: str) -> str | None:
    """Return the known optimizer that a name contains, such as `adamw` in `ema(adamw)`; None if there is none."""
    known = _KNOWN.findall(name)
    return known[-1] if known else None


def _variant(base: str, name: str) -> str:
    """Return a colour similar to another, with as much contrast, that depends on a name."""
    code = crc32(name.encode())
    hue, _, saturation = colorsys.rgb_to_hls(*(int(base[i : i + 2], 16) / 255 for i in (1, 3, 5)))
    hue = (hue + (code % 9 - 4) / 110) % 1
    target = 0.14 + 0.14 * (code // 9 % 8) / 7  # luminance, in the range with a contrast of 3 on both backgrounds
    low, high = 0.0, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if luminance(_hex(hue, middle, saturation)) < target else (low, middle)
    return _hex(hue, low, saturation)


def _hex(hue: float, lightness: float, saturation: float) -> str:
    return "#" + "".join(f"{round(255 * c):02x}" for c in colorsys.hls_to_rgb(hue, lightness, saturation))
