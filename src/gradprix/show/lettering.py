"""Widths of texts in figures, and texts that are shortened or wrapped to a width.

Widths are those of DejaVu Sans, the font of exported images. Most fonts of browsers are narrower.
"""

import warnings
from bisect import bisect_right
from functools import lru_cache
from unicodedata import east_asian_width

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

NAME_SIZE = 12
"""Size of names beside the axes, in pixels."""
REFERENCE = 100.0
"""Size at which letters are measured."""
MAX_NAME = 140.0
"""Maximum width of a name beside the axes, in pixels. With names of this width on both sides of the axes, letters
are at least 10 pixels high on a phone."""


def clean(text: str) -> str:
    """Return a text as a line that XML can hold: control characters become spaces."""
    return "".join(c if c.isprintable() or c == "\u00a0" else " " for c in text)


@lru_cache(4096)
def _advance(letter: str, weight: str) -> float:
    """Return the width of a letter relative to the size of the font."""
    font = FontProperties(family="DejaVu Sans", size=REFERENCE, weight=weight)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # its sign for a missing letter counts
        width = float(TextToPath().get_text_width_height_descent(letter, font, ismath=False)[0]) / REFERENCE
    return max(width, float(east_asian_width(letter) in "FW"))  # wide letters of other fonts are square


def text_width(text: str, size: float = NAME_SIZE, weight: str = "normal") -> float:
    """Return the width of a line of text in pixels, without kerning, which only makes texts narrower.

    Args:
        text: the line.
        size: size of the font in pixels.
        weight: `"normal"` or `"bold"`.
    """
    return size * sum(_advance(letter, weight) for letter in text)


def fit(text: str, width: float = MAX_NAME, size: float = NAME_SIZE, weight: str = "normal") -> str:
    """Return a text without control characters, with an ellipsis in place of its middle if it is too wide.

    The ends of names tell variants of an optimizer apart, such as `adamw(lr=0.1)` and `adamw(lr=0.2)`.

    Args:
        text: the text.
        width: maximum width in pixels.
        size: size of the font in pixels.
        weight: `"normal"` or `"bold"`.

    Example:
        >>> fit("momentum")
        'momentum'
        >>> fit("my_experimental_variant_of_adamw_17")
        'my_experime…f_adamw_17'
    """
    text = clean(text)
    if text_width(text, size, weight) <= width:
        return text

    def shortened(length: int) -> str:
        return f"{text[: (length + 1) // 2]}…{text[len(text) - length // 2 :]}"

    lengths = range(len(text))
    fitting = bisect_right(lengths, width, key=lambda length: text_width(shortened(length), size, weight))
    return shortened(max(0, fitting - 1))


def wrap(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Return a text as lines of a maximum width. Words that are wider are shortened; no-break spaces do not break.

    Args:
        text: the text.
        width: maximum width in pixels.
        size: size of the font in pixels.
        weight: `"normal"` or `"bold"`.
    """
    lines: list[str] = []
    for word in text.replace(" %", "\u00a0%").split(" "):  # a number keeps its unit
        longer = f"{lines[-1]} {word}" if lines else ""
        if lines and text_width(longer, size, weight) <= width:
            lines[-1] = longer
        else:
            lines.append(fit(word, width, size, weight))
    return [line.replace("\u00a0%", " %") for line in lines if line]
