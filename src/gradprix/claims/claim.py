"""Claims: texts in `claims.toml`, and experiments that are registered with a measurement and a decision rule."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import stdtrit
from scipy.stats import binomtest, bootstrap, sem

Verdict = Literal["holds", "holds only if", "does not hold", "not settled"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""Possible verdicts, in the order in which they are counted."""
Decision = Verdict | tuple[Verdict, str]
"""A verdict, or "holds only if" with its condition."""
Answer = bool | None
"""Answer of one criterion; None if the confidence interval leaves it open."""


@dataclass(frozen=True)
class Measured:
    """A measured quantity. Formatting it gives `0.52 (0.49 to 0.55)`, or one number if all three are printed alike.

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

    def __format__(self, spec: str) -> str:
        low, middle, high = (_format_number(x, spec or ".2f") for x in (self.ci95[0], self.effect, self.ci95[1]))
        return middle if low == middle == high else f"{middle} ({low} to {high})"


def _format_number(value: float, spec: str) -> str:
    text = f"{value:{spec}}"
    return text.replace("-", "−", 1) if text.startswith("-") and text.strip("-0.%") else text.removeprefix("-")


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
        """Return the finding from measured quantities."""
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
    return float(value) if np.isfinite(value) else None  # JSON has no inf and NaN


# Estimates with their intervals.


def exact(effect: float, n: int = 1, what: str = "") -> Measured:
    """Return a deterministic quantity, whose interval is the number itself."""
    return Measured(what, float(effect), (float(effect), float(effect)), n)


def mean(values: Any, what: str = "") -> Measured:
    """Return the mean of independent values, one for each seed, with Student's t interval."""
    sample = np.asarray(values, dtype=np.float64)
    middle, half = float(sample.mean()), float(stdtrit(len(sample) - 1, 0.975) * sem(sample))
    return Measured(what, middle, (middle - half, middle + half), len(sample))


def geometric_mean(logarithms: Any) -> Measured:
    """Return the geometric mean of ratios from their logarithms, whose interval is Student's t."""
    m = mean(logarithms)
    return Measured("", exp(m.effect), (exp(m.ci95[0]), exp(m.ci95[1])), m.n)


def median(values: Any, draws: int = 2_000) -> Measured:
    """Return the median of independent values with a percentile bootstrap interval, for skewed distributions."""
    sample, generator = np.asarray(values, dtype=np.float64), np.random.default_rng(0)
    result = bootstrap((sample,), np.median, n_resamples=draws, method="percentile", random_state=generator)
    low, high = result.confidence_interval
    return Measured("", float(np.median(sample)), (float(low), float(high)), len(sample))


def proportion(count: int, total: int) -> Measured:
    """Return a proportion with its 95 % interval (Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404)."""
    low, high = binomtest(count, total).proportion_ci(0.95)
    return Measured("", count / total, (float(low), float(high)), total)


# Criteria, and the verdicts that follow from them.


def is_above(m: Measured, threshold: float) -> Answer:
    """Return whether the whole interval is above a threshold, or, for False, below it."""
    return True if m.ci95[0] > threshold else False if m.ci95[1] <= threshold else None


def is_below(m: Measured, threshold: float) -> Answer:
    """Return whether the whole interval is below a threshold, or, for False, above it."""
    return True if m.ci95[1] < threshold else False if m.ci95[0] >= threshold else None


def is_within(m: Measured, low: float, high: float) -> Answer:
    """Return whether the whole interval is inside a range, or, for False, outside."""
    return True if low < m.ci95[0] and m.ci95[1] < high else False if m.ci95[1] < low or high < m.ci95[0] else None


def is_relevant(m: Measured, least: float, null: float = 0.0) -> Answer:
    """Return True if an effect is significant and matters, False if it is too small to matter, else None.

    Args:
        m: the effect.
        least: smallest effect that matters.
        null: value without an effect: 0, or 1 for a ratio.
    """
    return True if m.ci95[0] > null and m.effect >= least else False if m.ci95[1] < least else None


def is_equivalent(m: Measured, low: float, high: float, null: float = 0.0) -> Answer:
    """Return True if the interval is inside a margin, False if the effect is significant and outside, else None."""
    if low < m.ci95[0] and m.ci95[1] < high:
        return True
    return False if not m.ci95[0] <= null <= m.ci95[1] and not low < m.effect < high else None


def negate(answer: Answer) -> Answer:
    """Return the opposite answer; an open one stays open."""
    return None if answer is None else not answer


def all_of(*answers: Answer, condition: str = "") -> Decision:
    """Return the verdict of a claim that requires every answer.

    Args:
        *answers: the answers.
        condition: what the claim leaves out; with it, "holds" becomes "holds only if".
    """
    if False in answers:
        return "does not hold"
    return "not settled" if None in answers else ("holds only if", condition) if condition else "holds"


def any_of(answers: Mapping[str, Answer], prefix: str = "") -> Decision:
    """Return the verdict of a claim that holds only under the conditions whose answer is True.

    Args:
        answers: answer by condition, "it is large" for example.
        prefix: what precedes the conditions.
    """
    true = [condition for condition, answer in answers.items() if answer]
    if None in answers.values() or not answers:
        return "not settled"
    if len(true) == len(answers):
        return "holds"
    return ("holds only if", prefix + " or ".join(true)) if true else "does not hold"
