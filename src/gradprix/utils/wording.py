"""Lists and counts in sentences, for messages and results alike."""

from collections.abc import Sequence


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
