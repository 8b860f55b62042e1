"""Diagnosis of final runs, in sentences."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from gradprix.utils.wording import format_list

from .units import format_quantity

if TYPE_CHECKING:
    from gradprix.race.diagnosis_record import FamilyContrast, Measurement, Ratio
    from gradprix.race.record import RaceRecord

GROUP_NAMES = {"hard": "the hardest tenth", "rare": "rare classes"}
"""Name of the group of examples that a kind of measurement refers to."""
QUANTITIES = {
    "loss": "final training loss",
    "lr": "effective learning rate",
    "gain": "long-run learning rate",
    "update": "update-to-weight ratio",
    "rate": "learning rate left late in training",
    "curvature": "curvature",
    "edge": "share of the stability limit",
    "preconditioning": "curvature after preconditioning",
}
"""Phrase for each kind of measurement that is compared between entries."""
TRAITS = {"adaptive": "adaptive learning rates", "momentum": "momentum"}
"""Phrase for each trait."""
MECHANISMS: dict[str, tuple[dict[str, bool], str]] = {
    "adaptive": (
        {"preconditioning": False, "gain": True},
        "Their denominators damp the directions of largest curvature, which leaves room for a larger learning rate.",
    ),
    "momentum": (
        {"edge": False},
        "Momentum raises the stability limit, so that curvature leaves room for a larger learning rate.",
    ),
}
"""For each trait, the large ratios that show its mechanism (True if they are above 1), and the mechanism."""
SENTENCES = {
    "underfits": "Its final training loss is {ratio} that of the leaders: in this budget it fits the data less well.",
    "steps_too_long": "Its steps overshoot: the loss at their end would be above that at their start.",
    "steps_short": "Its steps are short: most of the possible decrease along them remains.",
    "noise_limited": (
        "Gradient noise limits it: below the stability limit, its steps undo {number} of the decrease that they begin "
        "with. A smaller learning rate or a larger batch would reach a lower loss."
    ),
    "unstable": (
        "While its learning rate is high, it exceeds the stability limit of the sharpest direction: along it, the loss "
        "does not converge until the schedule lowers the learning rate or the curvature falls."
    ),
    "near_stability_limit": (
        "Its learning rate is close to the stability limit of the sharpest direction ({number}): there is little room "
        "for a larger one."
    ),
    "batch_below_noise_scale": (
        "Its batch size is far below the noise scale: larger batches would need fewer steps, not fewer examples."
    ),
    "batch_above_noise_scale": (
        "Its batch size is far above the noise scale: smaller batches would need fewer examples."
    ),
    "rate_worn_out": ("Its learning rate wears out: apart from the schedule, {number} of it is left late in training."),
    "group_neglected": "It neglects {group}: it lowers their loss less than plain gradient descent would.",
    "group_favoured": "It favours {group}: it lowers their loss more than plain gradient descent would.",
    "diverged": "{count} of {runs} final runs diverged, the first at step {first:,}.",
}
"""Sentence template of each finding."""


class Conclusion(NamedTuple):
    """What a diagnosis concludes about an entry or a family.

    Args:
        subject: name of the entry; empty for a comparison of families.
        text: the conclusions about it, in sentences.
    """

    subject: str
    text: str


def format_findings(record: "RaceRecord") -> list[Conclusion]:
    """Return the conclusions of a diagnosis: those about entries, best mean first, then those about families.

    The list is empty if the race was not diagnosed, or if there are no findings.
    """
    if record.diagnosis is None:
        return []
    conclusions = []
    for entry in record.ranking:
        measurements, steps = record.diagnosis.entries[entry.name].measurements, entry.final.divergence_steps
        if sentences := [format_finding(measurement, steps) for measurement in measurements if measurement.finding]:
            conclusions.append(Conclusion(entry.name, " ".join(sentences)))
    families = (format_families(record.diagnosis.families, trait) for trait in TRAITS)
    return [*conclusions, *(Conclusion("", sentence) for sentence in families if sentence)]


def format_missing(record: "RaceRecord", unknown: Sequence[str]) -> list[str]:
    """Return what a diagnosis does not show and what would make it clear, one sentence each.

    Args:
        record: record of a race that was diagnosed.
        unknown: labels of the measurements whose values or intervals could not be estimated for any entry.
    """
    assert record.diagnosis is not None
    sentences, runs = [], record.diagnosis.runs
    if not format_findings(record):
        sentences.append(
            f"No cause is significant in {runs} final runs of each optimizer. More final seeds (--seeds) narrow the "
            "intervals."
        )
    if not any(m.comparison for entry in record.diagnosis.entries.values() for m in entry.measurements):
        sentences.append(
            "The optimizers are not compared with each other, because that takes six or more runs of two optimizers, "
            "none of which diverged."
        )
    if unknown:
        sentences.append(
            f"Not shown, because noise hides them in so few measurements: {format_list(unknown)}. Larger models of the "
            "task or more final seeds would show them."
        )
    return sentences


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
    share = "" if measurement.number is None else f"{100 * measurement.number:.0f}\u00a0%"
    ratio = "" if measurement.comparison is None else format_ratio(measurement.comparison)
    return SENTENCES[measurement.finding].format(
        group=group, count=len(steps), runs=runs, first=min(steps, default=0), number=share, ratio=ratio
    )


def format_families(contrasts: "Sequence[FamilyContrast]", trait: str) -> str:
    """Return the large differences between the entries with a trait and those without it; empty if there are none."""
    large = [contrast for contrast in contrasts if contrast.trait == trait and contrast.ratio.is_large]
    if not large:
        return ""
    ratios = [f"{format_ratio(contrast.ratio)} the {QUANTITIES[contrast.kind]}" for contrast in large]
    text = f"With {TRAITS[trait]}, compared to without, other things equal: {'; '.join(ratios)}."
    is_above = {contrast.kind: contrast.ratio.number > 1 for contrast in large}
    shown, mechanism = MECHANISMS[trait]
    return f"{text} {mechanism}" if shown.items() <= is_above.items() else text


def format_updates_title(record: "RaceRecord") -> str:
    """Name the entries with the smallest and the largest effective learning rate."""
    assert record.diagnosis is not None
    rates = {
        name: m.number
        for name, entry in record.diagnosis.entries.items()
        for m in entry.measurements
        if m.kind == "lr" and m.number
    }
    if len(rates) < 2:
        return "Length and direction of the updates during training."
    low, high = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
    ends = f"from {format_quantity(rates[low])} ({low}) to {format_quantity(rates[high])} ({high})"
    return f"Effective learning rates differ by a factor of {format_quantity(rates[high] / rates[low])}: {ends}."


def format_ratio(ratio: "Ratio") -> str:
    """Format a ratio with its interval: `9.8 times (7.6 to 13)`."""
    return f"{format_quantity(ratio.number)} times ({format_quantity(ratio.low)} to {format_quantity(ratio.high)})"
