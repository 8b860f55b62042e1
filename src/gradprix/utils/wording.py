"""Lists and counts in sentences, and printable texts, for messages and results alike."""

import re
from collections.abc import Sequence

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters besides tab and newline, and those that reverse the direction of a text."""


def printable(text: str) -> str:
    r"""Return a text without control characters, with which it could write anywhere or change the terminal.

    They have no width, so that the layout of a line stays as it is.

    Example:
        >>> printable("adam\x1b[2J")
        'adam[2J'
    """
    return _CONTROLS.sub("", text)


def format_list(names: Sequence[str], most: int = 12) -> str:
    """Format names as `a, b and c`; names after the first `most` are replaced by their number."""
    return _join(names, "and", most)


def format_choice(names: Sequence[str], most: int = 12) -> str:
    """Format names as `a, b or c`; names after the first `most` are replaced by their number."""
    return _join(names, "or", most)


def _join(names: Sequence[str], conjunction: str, most: int) -> str:
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {conjunction} {names[-1]}"


def format_count(count: int, noun: str) -> str:
    """Format a count with its noun: `1 task`, `2 tasks`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def format_number(number: int) -> str:
    """Format a number as a word up to twelve, then in digits."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    return words[number] if number < len(words) else str(number)
