"""Plan of a race in sentences."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradprix.race.plan_description import Omission

OMITTED_PARTS = {
    "optimizers": "optimizers ({names})",
    "trials": "tuning trials each",
    "seeds": "final seeds each",
    "epochs": "epochs",
}
"""Parts of a protocol that a plan may omit."""


def format_omission(omission: "Omission") -> str:
    """Format what a plan omits: `18 of 20 epochs`."""
    part = OMITTED_PARTS[omission.part].format(names=", ".join(omission.names))
    return f"{omission.omitted:.3g} of {omission.requested} {part}"
