"""Plan of a race, in sentences."""

from typing import TYPE_CHECKING, Any

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
