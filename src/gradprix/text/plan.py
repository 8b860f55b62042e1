"""Plan of a race, in sentences."""

from typing import TYPE_CHECKING, Any

from .units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gradprix.race.plan_description import Omission

OMITTED_PARTS = {
    "optimizers": "optimizers ({names})",
    "trials": "tuning trials each",
    "seeds": "final seeds each",
    "epochs": "epochs",
}
"""Description of each part of the protocol that a plan may reduce to fit a time budget."""


OPTIONS = {
    "clip_norm": "gradients clipped to the norm {:g}",
    "accumulate": "gradients accumulated over {} micro-batches",
    "groups": "parameter groups by {}",
    "ema": "weights averaged with the decay {:g}",
    "autocast": "autocast to {}",
}
"""Description of each option of the training."""
NO_DECAY = "no weight decay for biases, norm layers and vectors"


def format_options(options: "Mapping[str, Any]", tuned: "Sequence[str]" = ()) -> list[str]:
    """Format the options of the training that a task sets, without those that are tuned."""
    return [
        NO_DECAY if value == "no_decay_norms" else OPTIONS[name].format(value)
        for name, value in options.items()
        if name not in tuned
    ]


def format_omission(omission: "Omission") -> str:
    """Format a reduction of the plan: `18 of 20 epochs` if only 2 epochs remain."""
    part = OMITTED_PARTS[omission.part].format(names=", ".join(omission.names))
    return f"{omission.omitted:.3g} of {omission.requested} {part}"


def format_effort(
    runs: int,
    entries: int,
    trials: int,
    seeds: int,
    quarter: int,
    seconds: "float | None",
    is_measuring: bool = False,
) -> str:
    """Format the number of training runs of a race, and its duration.

    Args:
        runs: maximum number of training runs.
        entries: number of entries.
        trials: number of tuning trials of each entry.
        seeds: maximum number of final seeds.
        quarter: number of runs of each entry with a quarter of the examples.
        seconds: estimated duration; None if it is unknown.
        is_measuring: True if the duration is unknown because it is still being measured.
    """
    short = f", and {quarter} with a quarter of the examples" if quarter else ""
    text = (
        f"Up to {runs:,} training runs. For each of {entries} optimizers: {trials} to tune it, up to {seeds} final "
        f"runs{short}."
    )
    if seconds is not None:
        return f"{text} About {format_duration(seconds)} on this machine, less if the result is clear sooner."
    return f"{text} Measuring how long a run takes…" if is_measuring else text
