"""Comparison of values in JSON form: those that a bundle states, and those that are found here."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec


class Difference(msgspec.Struct, frozen=True):
    """Value that differs.

    Args:
        where: its place, such as `entries.0.tuned.lr`.
        stated: its value in the bundle, as text.
        actual: its value here, as text.
    """

    where: str
    stated: str
    actual: str

    @classmethod
    def from_values(cls, where: str, stated: Any, actual: Any) -> "Difference":
        """Return the difference between two values, as the shortest texts that show it."""
        short, exact = [[form(value) for value in (stated, actual)] for form in (_short_text, repr)]
        texts = exact if short[0] == short[1] else short
        first = next((i for i, (one, other) in enumerate(zip(*texts, strict=False)) if one != other), 0)
        start = max(0, first - MAX_LENGTH // 2) if max(map(len, texts)) > MAX_LENGTH else 0
        return cls(where, *(_cut(text, start) for text in texts))


MAX_LENGTH = 60
"""Largest length of the text of a value."""


def _short_text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _cut(text: str, start: int) -> str:
    """Return at most `MAX_LENGTH` characters of a text from a start, with dots for what is left out."""
    end = start + MAX_LENGTH
    return f"{'...' * (start > 0)}{text[start:end]}{'...' * (len(text) > end)}"


def compare_values(stated: Any, actual: Any, tolerance: float = 0.0, where: str = "") -> list[Difference]:
    """Return the differences between two values in JSON form, at any depth.

    Args:
        stated: one of them.
        actual: the other.
        tolerance: relative tolerance of numbers; 0 requires equality.
        where: place of the values.
    """
    if isinstance(stated, Mapping) and isinstance(actual, Mapping):
        pairs = {key: (stated.get(key), actual.get(key)) for key in {**stated, **actual}}
        each = [compare_values(a, b, tolerance, f"{where}.{key}".lstrip(".")) for key, (a, b) in pairs.items()]
        return [difference for differences in each for difference in differences]
    if isinstance(stated, list) and isinstance(actual, list) and len(stated) == len(actual):
        each = [
            compare_values(a, b, tolerance, f"{where}.{i}") for i, (a, b) in enumerate(zip(stated, actual, strict=True))
        ]
        return [difference for differences in each for difference in differences]
    return [] if _is_equal(stated, actual, tolerance) else [Difference.from_values(where, stated, actual)]


def _is_equal(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, bool) != isinstance(b, bool):
        return False
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or (a != a and b != b) or (tolerance > 0 and math.isclose(a, b, rel_tol=tolerance))
    return bool(a == b)
