"""Claims: texts in `claims.toml`, and experiments that are registered with a measurement and a decision rule."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from .decisions import Decision, Verdict
from .estimates import Measured

Quantities = Mapping[str, Any]
"""What an experiment measured, by name: `Measured`, the deciding one first, and texts that only the sentence uses."""


@dataclass(frozen=True)
class Finding:
    """The outcome of an experiment.

    Args:
        verdict: verdict by the claim's decision rule.
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
        measure: the experiment; True requests a quick one, with fewer seeds.
        decide: the decision rule.
        say: the result in a sentence, from the measured quantities.
        statement: the textbook's statement, in our words.
        prediction: observation to expect if the claim is true; fixed before the experiment is run.
        decides: the decision rule in words, fixed before as well: effect, effect size, level and n.
        on: test bed: `"landscapes"`, `"networks"` or `"suite"` (the committed races on all tasks).
        source: paper that supports or refutes the claim, if there is one.
        revised: changes made after results were seen, and the reason; the rule was then not fixed in advance.
        measured: description and unit of each quantity.
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
        """Measure, and conclude."""
        return self.conclude(self.measure(quick))

    def conclude(self, quantities: Quantities) -> Finding:
        """Return the conclusion drawn from the measured quantities."""
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
        name: id of the claim, whose texts are in `claims.toml`; names in braces there are constants of the
            measurement's module.
        decide: the decision rule.
        say: the result in a sentence; by default the template `sentence` of `claims.toml`.
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
