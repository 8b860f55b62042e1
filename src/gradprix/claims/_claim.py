"""What a claim is: a statement, what would be seen if it were true, an experiment, and a verdict from its numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import stdtrit

Verdict = Literal["holds", "holds only if", "does not hold", "not settled"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""What can come of a claim, in the order in which they are counted."""


@dataclass(frozen=True)
class Measured:
    """One thing that was measured.

    Args:
        what: in words, with its unit.
        effect: the estimate.
        ci95: its 95 % interval; twice the estimate where nothing is random.
        n: how many seeds, starts or tasks it is from.
    """

    what: str
    effect: float
    ci95: tuple[float, float]
    n: int

    def said(self, form: str = ".2f") -> str:
        """As it stands in a sentence: `0.52 (0.49 to 0.55)`, or the number alone where its ends are written alike."""
        low, middle, high = (_written(value, form) for value in (self.ci95[0], self.effect, self.ci95[1]))
        return middle if low == middle == high else f"{middle} ({low} to {high})"


def _written(value: float, form: str) -> str:
    text = f"{value:{form}}"
    return text.replace("-", "−", 1) if text.startswith("-") and text.strip("-0.%") else text.removeprefix("-")


@dataclass(frozen=True)
class Finding:
    """What came of a claim.

    Args:
        verdict: by the rule that the claim's file fixed beforehand.
        says: what was found, in a sentence or two, each number in it among those measured.
        measured: the numbers, that which decides first.
        condition: after "holds only if", when it does.
    """

    verdict: Verdict
    says: str
    measured: Sequence[Measured]
    condition: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim of the popular account, and the experiment that tests it.

    Args:
        id: a short name, `momentum-needs-root-kappa`.
        account: what the account says, in our words.
        prediction: what would be seen if it were true; fixed before anything is run.
        decides: the rule: which effect, how large, at which level and n, makes it hold; fixed likewise.
        run: the experiment; True for a quick one, with fewer seeds.
        on: where it is tested: `"landscapes"`, `"networks"` or `"suite"` (the committed races on all tasks).
        source: the paper that says so, or that says otherwise, where there is one.
        revised: what was changed after a first look at the numbers, and why; then the rule was not fixed beforehand.
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
    """A claim with what came of it, and the seconds it took."""

    claim: Claim
    finding: Finding
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON: `id`, `statement`, `verdict`, `effect`, `ci95` and `n` of what decides, and all the rest."""
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
    return float(value) if np.isfinite(value) else None  # JSON has no others


def exact(what: str, effect: float, n: int = 1) -> Measured:
    """What is not random: its interval is the number itself."""
    return Measured(what, float(effect), (float(effect), float(effect)), n)


def mean(what: str, values: Sequence[float], confidence: float = 0.95) -> Measured:
    """The mean of independent values and Student's t interval.

    Args:
        what: what they are, with the unit.
        values: one a seed.
        confidence: of the interval.
    """
    found = np.asarray(values, dtype=np.float64)
    half = stdtrit(len(found) - 1, 0.5 + confidence / 2) * found.std(ddof=1) / np.sqrt(len(found))
    middle = float(found.mean())
    return Measured(what, middle, (middle - float(half), middle + float(half)), len(found))


def median(what: str, values: Sequence[float], draws: int = 2_000) -> Measured:
    """The median of independent values and its percentile bootstrap interval, for what is skewed.

    Args:
        what: what they are, with the unit.
        values: one a seed.
        draws: of the bootstrap.
    """
    found = np.asarray(values, dtype=np.float64)
    drawn = np.median(np.random.default_rng(0).choice(found, (draws, len(found))), axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Measured(what, float(np.median(found)), (float(low), float(high)), len(found))
