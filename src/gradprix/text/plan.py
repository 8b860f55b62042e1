"""Plan of a race, in sentences."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradprix.race.plan_description import Omission

OMITTED_PARTS = {
    "optimizers": "optimizers ({names})",
    "trials": "tuning trials each",
    "seeds": "final seeds each",
    "epochs": "epochs",
}
"""Description of each part of the protocol that a plan may reduce to fit a time budget."""


def format_omission(omission: "Omission") -> str:
    """Format a reduction of the plan: `18 of 20 epochs` if only 2 epochs remain."""
    part = OMITTED_PARTS[omission.part].format(names=", ".join(omission.names))
    return f"{omission.omitted:.3g} of {omission.requested} {part}"
