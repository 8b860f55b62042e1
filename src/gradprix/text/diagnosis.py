"""Diagnosis of an entry's final runs in sentences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradprix.race.diagnosis_record import Measurement

GROUPS = {"hard": "the hardest tenth", "rare": "rare classes"}
"""Groups of examples by kind of measurement."""
SENTENCES = {
    "steps_too_long": "Its steps go too far: along them the loss would be above where it began.",
    "steps_short": "Its steps are short: along them most of the way to the bottom is left.",
    "unstable": "Its rate is above what the sharpest direction allows: there it cannot settle.",
    "batch_below_noise_scale": (
        "Its batches are far below the noise scale: larger ones would need fewer steps, not fewer examples."
    ),
    "batch_above_noise_scale": "Its batches are far above the noise scale: smaller ones would need fewer examples.",
    "rate_worn_out": "Its effective rate wore out beyond what the schedule asks: late steps are small for their "
    "gradients.",
    "group_neglected": "It leaves {group} behind: it lowers their loss less than the plain gradient would.",
    "group_favoured": "It serves {group} more than the plain gradient would.",
    "diverged": "{count} of {runs} final runs diverged, the first at step {first:,}.",
}
"""Sentence of each finding."""


def format_finding(measurement: "Measurement", divergence_steps: Sequence[int | None]) -> str:
    """Return the sentence on a measurement; empty if it is inconclusive.

    Args:
        measurement: a measured property of an entry.
        divergence_steps: step at which each final run of the entry diverged, or None.
    """
    if measurement.finding is None:
        return ""
    steps = [step for step in divergence_steps if step is not None]
    runs, group = len(divergence_steps), GROUPS.get(measurement.kind, "")
    return SENTENCES[measurement.finding].format(group=group, count=len(steps), runs=runs, first=min(steps, default=0))
