"""Claims: a statement, a prediction, an experiment, and a verdict from its numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import stdtrit

Verdict = Literal["holds", "holds only if", "does not hold", "not settled"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""Possible verdicts, in the order in which they are counted."""


@dataclass(frozen=True)
class Measured:
    """A measured quantity.

    Args:
        what: description with its unit.
        effect: the estimate.
        ci95: its 95 % confidence interval; twice the estimate for deterministic quantities.
        n: number of seeds, starts or tasks.
    """

    what: str
    effect: float
    ci95: tuple[float, float]
    n: int

    def text(self, form: str = ".2f") -> str:
        """Format the effect with its interval: `0.52 (0.49 to 0.55)`, or one number if all are printed alike."""
        low, middle, high = (_format_number(value, form) for value in (self.ci95[0], self.effect, self.ci95[1]))
        return middle if low == middle == high else f"{middle} ({low} to {high})"


def _format_number(value: float, form: str) -> str:
    text = f"{value:{form}}"
    return text.replace("-", "−", 1) if text.startswith("-") and text.strip("-0.%") else text.removeprefix("-")


@dataclass(frozen=True)
class Finding:
    """The outcome of an experiment.

    Args:
        verdict: verdict by the decision rule fixed in the claim's file.
        says: the result in a sentence or two; each number in it is among those measured.
        measured: the measured quantities, the deciding one first.
        condition: the condition after "holds only if".
    """

    verdict: Verdict
    says: str
    measured: Sequence[Measured]
    condition: str = ""


@dataclass(frozen=True)
class Claim:
    """A textbook claim and the experiment that tests it.

    Args:
        id: short identifier, such as `momentum-needs-root-kappa`.
        account: the textbook's statement, in our words.
        prediction: observation to expect if the claim is true; fixed before the experiment is run.
        decides: decision rule, fixed before as well: effect, effect size, level and n that make the claim hold.
        run: the experiment; True requests a quick one, with fewer seeds.
        on: test bed: `"landscapes"`, `"networks"` or `"suite"` (the committed races on all tasks).
        source: paper that supports or refutes the claim, if there is one.
        revised: changes made after results were seen, and the reason; the rule was then not fixed in advance.
    """

    id: str
    account: str
    prediction: str
    decides: str
    run: Callable[[bool], Finding]
    on: Literal["landscapes", "networks", "suite"]
    source: str = ""
    revised: str = ""


@dataclass(frozen=True)
class Result:
    """A claim with its finding and run time in seconds."""

    claim: Claim
    finding: Finding
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON: `effect`, `ci95` and `n` of the deciding quantity, and all other fields."""
        measured = [
            {"what": m.what, "effect": _finite(m.effect), "ci95": [_finite(end) for end in m.ci95], "n": m.n}
            for m in self.finding.measured
        ]
        first = measured[0] if measured else {"effect": None, "ci95": [None, None], "n": 0}
        verdict = self.finding.verdict
        return {
            "id": self.claim.id,
            "statement": self.claim.account,
            "verdict": f"{verdict} {self.finding.condition}" if verdict == "holds only if" else verdict,
            "effect": first["effect"],
            "ci95": first["ci95"],
            "n": first["n"],
            "says": self.finding.says,
            "prediction": self.claim.prediction,
            "decides": self.claim.decides,
            "on": self.claim.on,
            "source": self.claim.source,
            "revised": self.claim.revised,
            "measured": measured,
            "seconds": round(self.seconds, 1),
        }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None  # JSON has no inf and NaN


def exact(what: str, effect: float, n: int = 1) -> Measured:
    """Return a deterministic quantity, whose interval is the number itself."""
    return Measured(what, float(effect), (float(effect), float(effect)), n)


def mean(what: str, values: Sequence[float], confidence: float = 0.95) -> Measured:
    """Return the mean of independent values with Student's t interval.

    Args:
        what: description with its unit.
        values: one per seed.
        confidence: confidence level of the interval.
    """
    sample = np.asarray(values, dtype=np.float64)
    half = stdtrit(len(sample) - 1, 0.5 + confidence / 2) * sample.std(ddof=1) / np.sqrt(len(sample))
    middle = float(sample.mean())
    return Measured(what, middle, (middle - float(half), middle + float(half)), len(sample))


def median(what: str, values: Sequence[float], draws: int = 2_000) -> Measured:
    """Return the median of independent values with a percentile bootstrap interval, for skewed distributions.

    Args:
        what: description with its unit.
        values: one per seed.
        draws: number of bootstrap samples.
    """
    sample = np.asarray(values, dtype=np.float64)
    medians = np.median(np.random.default_rng(0).choice(sample, (draws, len(sample))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return Measured(what, float(np.median(sample)), (float(low), float(high)), len(sample))
