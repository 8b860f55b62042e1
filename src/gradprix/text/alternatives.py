"""Alternatives to a race that does not fit its time budget, as commands."""

import shlex
from typing import TYPE_CHECKING

from .units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gradprix.race.alternatives import Alternative


def format_commands(alternatives: "Iterable[Alternative]", task: str, epochs: float) -> str:
    """Format alternatives as commands with their durations and what they do, in lines; empty if there are none.

    Args:
        alternatives: the alternatives.
        task: the task as it is given on the command line.
        epochs: requested number of epochs.
    """
    lines = []
    for each in alternatives:
        options = " ".join(
            f"--{name} {value:g}" if isinstance(value, float) else f"--{name} {value}"
            for name, value in each.settings.items()
        )
        verb = "tune" if "optimizer" in each.settings else "race"
        lines.append(f"{format_duration(each.seconds):>10}  gradprix {verb} {shlex.quote(task)} {options}".rstrip())
        lines.append(f"{'':>10}  {_describe(each, epochs)}")
    return "\n".join(["Instead of this time budget, with your other options:", *lines]) if lines else ""


def _describe(alternative: "Alternative", epochs: float) -> str:
    """Describe what an alternative does, and what its result does not say."""
    plan = alternative.plan
    names = ", ".join(entry.name for entry in plan.entries)
    notes = []
    if "optimizer" in alternative.settings:
        notes.append("its learning rate, and what that gains over the default")
    elif plan.task.epochs < epochs:
        notes.append("longer runs may rank them differently")
    length = f", {plan.task.epochs:.2g} instead of {epochs:g} epochs" if plan.task.epochs < epochs else ""
    return "; ".join([f"{names}: {plan.trials} trials, {plan.seeds} seeds{length}", *notes])
