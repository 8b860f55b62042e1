"""Claims of textbooks, with texts from `claims.toml` and experiments that the decorator `experiment` registers."""

import tomllib
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from .registry import Conclusion, Hypothesis, Registry, text_fields


@dataclass(frozen=True, kw_only=True)
class Claim(Hypothesis):
    """A textbook claim and the experiment that tests it.

    Args:
        on: test bed: `"landscapes"`, `"networks"` or `"suite"` (the committed races on all tasks).
    """

    on: Literal["landscapes", "networks", "suite"]


CLAIMS = Registry(Claim, tomllib.loads(Path(__file__).with_name("claims.toml").read_text("utf-8")))
"""All claims, in the order of the textbook."""
experiment = CLAIMS.experiment


@dataclass(frozen=True)
class Result:
    """A claim with the outcome of its experiment and the run time in seconds."""

    claim: Claim
    conclusion: Conclusion
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Convert to a JSON-serializable dictionary.

        The keys `effect`, `ci95` and `n` at the top level describe the deciding quantity.
        """
        measured = [
            {"what": m.what, "effect": _finite(m.effect), "ci95": [_finite(end) for end in m.ci95], "n": m.n}
            for m in self.conclusion.measured
        ]
        first = measured[0] if measured else {"effect": None, "ci95": [None, None], "n": 0}
        texts = text_fields(self.claim)
        return {
            "id": self.claim.id,
            "statement": texts.pop("statement"),
            "verdict": f"{self.conclusion.verdict} {self.conclusion.condition}".rstrip(),
            **{key: first[key] for key in ("effect", "ci95", "n")},
            "says": self.conclusion.says,
            **texts,
            "measured": measured,
            "seconds": round(self.seconds, 1),
        }


def _finite(value: float) -> float | None:
    return float(value) if isfinite(value) else None  # JSON has no inf and NaN
