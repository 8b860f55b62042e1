"""Entries of a race that take many times as long as others, in sentences."""

from typing import TYPE_CHECKING

from .units import format_duration

if TYPE_CHECKING:
    from gradprix.race.expensive_entries import ExpensiveEntry

SMALLER_LIMITS = (1000, 256)
"""Examples of a smaller limit of the side of square matrices; the first that is below the present side is given."""


def format_expensive_entry(entry: "ExpensiveEntry") -> str:
    """Say how long an expensive entry takes, why, and what to do about it."""
    duration, ratio = format_duration(entry.seconds), f"{float(f'{entry.ratio:.2g}'):,.0f}"
    text = f"{entry.name} takes about {duration}, {ratio} times as long as an elementwise optimizer such as adamw"
    if not entry.side:
        return f"{text}. Leave {entry.name} out, or give it a race of its own."
    text += f", because it decomposes matrices with {entry.side:,} rows."
    limits = " and ".join(f"{name} (now {value:,.0f})" for name, value in entry.limits.items())
    if not limits:
        return text if entry.is_alone else f"{text} Leave {entry.name} out, or give it a race of its own."
    text += f" Reduce {limits}" if entry.is_alone else f" Leave {entry.name} out, or reduce {limits}"
    smaller = next((limit for limit in SMALLER_LIMITS if limit < entry.side), None)
    if entry.rule is None or smaller is None:
        return f"{text}."
    settings = {**entry.fixed, **dict.fromkeys(entry.limits, smaller)}
    return f"{text}: gp.Entry({entry.name!r}, gp.rules.{entry.rule}, {settings!r})."
