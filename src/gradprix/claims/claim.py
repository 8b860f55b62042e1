"""Claims, with texts from `claims.toml` and experiments that are registered by the decorator `experiment`."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from .decisions import Decision, Verdict
from .estimates import Measured

Quantities = Mapping[str, Any]
"""Results of an experiment by name: `Measured` quantities, with the deciding one first, and other values that the
decision rule or the sentence uses."""


@dataclass(frozen=True)
class Finding:
    """The outcome of an experiment.

    Args:
        verdict: verdict by the claim's decision rule.
        says: the result in a sentence or two; each of its numbers is one of the measured quantities.
        measured: the measured quantities, with the deciding one first.
        condition: the condition that completes the verdict "holds only if"; empty for other verdicts.
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
        measure: function that runs the experiment; with argument True it runs a quick one, with fewer seeds.
        decide: decision rule: function from the measured quantities to the verdict.
        say: function from the measured quantities to the result in a sentence.
        statement: the textbook's statement, paraphrased.
        prediction: observation expected if the claim is true; fixed before the experiment is run.
        decides: the decision rule in words (effect, effect size, level and n); also fixed before the experiment is run.
        on: test bed: `"landscapes"`, `"networks"` or `"suite"` (the committed races on all tasks).
        source: paper that supports or refutes the claim, if there is one.
        revised: changes to the decision rule made after results were seen, with the reason; empty if there are none.
        measured: description and unit of each measured quantity.
    """

    id: str
    measure: Callable[[bool], Quantities]
    decide: Callable[[Quantities], Decision]
    say: Callable[[Quantities], str]
    statement: str
    prediction: str
    decides: str
    on: Literal["landscapes", "networks", "suite"]
    source: str = ""
    revised: str = ""
    measured: Mapping[str, str] = field(default_factory=dict)

    def run(self, quick: bool = False) -> Finding:
        """Run the experiment, or a quick version of it, and return its outcome."""
        return self.conclude(self.measure(quick))

    def conclude(self, quantities: Quantities) -> Finding:
        """Apply the decision rule to the measured quantities and return the outcome."""
        decision = self.decide(quantities)
        verdict, condition = decision if isinstance(decision, tuple) else (decision, "")
        measured = [
            replace(m, what=self.measured.get(name, m.what))
            for name, m in quantities.items()
            if isinstance(m, Measured)
        ]
        return Finding(verdict, self.say(quantities), measured, condition)


TEXTS: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("claims.toml").read_text("utf-8"))
"""Texts of the claims by id, in the order of the textbook."""
CLAIMS: dict[str, Claim] = {}
"""Registered claims by id."""
Experiment = Callable[..., Quantities]


def experiment(
    name: str, decide: Callable[[Quantities], Decision], say: Callable[[Quantities], str] | None = None
) -> Callable[[Experiment], Experiment]:
    """Register the decorated measurement as the experiment of a claim.

    Args:
        name: id of the claim. Its texts are in `claims.toml`, where names in braces are replaced by constants of the
            module that defines the measurement.
        decide: decision rule: function from the measured quantities to the verdict.
        say: function from the measured quantities to the result in a sentence; by default it fills in the template
            `sentence` of `claims.toml`.
    """

    def register(measure: Experiment) -> Experiment:
        texts = {key: text for key, text in TEXTS[name].items() if isinstance(text, str)}
        template, constants = texts.pop("sentence", ""), measure.__globals__
        fields: dict[str, Any] = {key: text.format(**constants) for key, text in texts.items()}
        measured = TEXTS[name].get("measured", {})
        CLAIMS[name] = Claim(
            name, measure, decide, say or (lambda m: template.format(**m)), measured=measured, **fields
        )
        return measure

    return register


@dataclass(frozen=True)
class Result:
    """A claim with the outcome of its experiment and the run time in seconds."""

    claim: Claim
    finding: Finding
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Convert to a JSON-serializable dictionary.

        The keys `effect`, `ci95` and `n` at the top level describe the deciding quantity.
        """
        measured = [
            {"what": m.what, "effect": _finite(m.effect), "ci95": [_finite(end) for end in m.ci95], "n": m.n}
            for m in self.finding.measured
        ]
        first = measured[0] if measured else {"effect": None, "ci95": [None, None], "n": 0}
        return {
            "id": self.claim.id,
            "statement": self.claim.statement,
            "verdict": f"{self.finding.verdict} {self.finding.condition}".rstrip(),
            **{key: first[key] for key in ("effect", "ci95", "n")},
            "says": self.finding.says,
            **{key: getattr(self.claim, key) for key in ("prediction", "decides", "on", "source", "revised")},
            "measured": measured,
            "seconds": round(self.seconds, 1),
        }


def _finite(value: float) -> float | None:
    return float(value) if isfinite(value) else None  # JSON has no inf and NaN
