"""Diagnosis of an entry's final runs, in sentences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradprix.race.diagnosis_record import Measurement

GROUP_NAMES = {"hard": "the hardest tenth", "rare": "rare classes"}
"""Name of the group of examples that a kind of measurement refers to."""
SENTENCES = {
    "steps_too_long": "Its steps overshoot: the loss at their end would be above that at their start.",
    "steps_short": "Its steps are short: most of the possible decrease along them remains.",
    "unstable": "Its learning rate exceeds the stability threshold of the sharpest direction, which cannot converge.",
    "batch_below_noise_scale": (
        "Its batch size is far below the noise scale: larger batches would need fewer steps, not fewer examples."
    ),
    "batch_above_noise_scale": (
        "Its batch size is far above the noise scale: smaller batches would need fewer examples."
    ),
    "rate_worn_out": (
        "Its effective learning rate decays more than the schedule: late steps are small relative to their gradients."
    ),
    "group_neglected": "It neglects {group}: it lowers their loss less than plain gradient descent would.",
    "group_favoured": "It favours {group}: it lowers their loss more than plain gradient descent would.",
    "diverged": "{count} of {runs} final runs diverged, the first at step {first:,}.",
}
"""Sentence template of each finding."""


def format_finding(measurement: "Measurement", divergence_steps: Sequence[int | None]) -> str:
    """Return the conclusion from a measurement as a sentence, or an empty string if it is inconclusive.

    Args:
        measurement: measured property of an entry.
        divergence_steps: for each final run of the entry, the step at which it diverged; None if it did not diverge.
    """
    if measurement.finding is None:
        return ""
    steps = [step for step in divergence_steps if step is not None]
    runs, group = len(divergence_steps), GROUP_NAMES.get(measurement.kind, "")
    return SENTENCES[measurement.finding].format(group=group, count=len(steps), runs=runs, first=min(steps, default=0))
