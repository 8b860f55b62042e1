"""Progress of a running race, in words."""

from typing import TYPE_CHECKING

from gradprix.utils.wording import format_list

from .units import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

PHASES = {
    "control": "Repeating published runs",
    "tuning": "Tuning",
    "final": "Final runs",
    "equal time": "Runs in equal time",
}
"""Description of each phase of training runs."""


def format_phase(phase: str) -> str:
    """Describe a phase of a race; steps before and after the training runs describe themselves."""
    return PHASES.get(phase, phase)


def format_time_left(seconds: float | None) -> str:
    """Format the remaining time if all planned runs are needed; empty if it is unknown."""
    return "" if seconds is None else f"at most {format_duration(max(1.0, round(seconds)))} left"


def format_stall(seconds: float, running: "Sequence[str]") -> str:
    """Format what has been running without progress: `soap has been running for 2 min without news`; empty for 0 s.

    Args:
        seconds: seconds without progress.
        running: names of the entries that are being trained; empty if they are unknown.
    """
    if not seconds:
        return ""
    names, verb = (format_list(list(running)), "has" if len(running) == 1 else "have") if running else ("it", "has")
    return f"{names} {verb} been running for {format_duration(round(seconds))} without news"


def format_counts(finished: int, total: int) -> str:
    """Format the finished training runs and their largest number: `25 of up to 350 training runs`."""
    return f"{finished:,} of up to {total:,} training runs"


def format_leader(name: str, score: str, is_final: bool) -> str:
    """Format the entry that leads so far, with its score.

    Args:
        name: name of the entry.
        score: formatted score.
        is_final: True if the score is a mean of final runs, False if it is the best of the tuning runs.
    """
    return f"{name} leads so far: {score} {'on average in final runs' if is_final else 'in its best tuning run'}"
