"""Statements that are tested by experiments, and registries of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Generic, TypeVar

from .decisions import Decision, Verdict
from .estimates import Measured

Quantities = Mapping[str, Any]
"""Results of an experiment by name: `Measured` quantities, with the deciding one first, and other values that the
decision rule or the sentence uses."""
Measurement = Callable[..., Quantities]


@dataclass(frozen=True)
class Conclusion:
    """The outcome of an experiment.

    Args:
        verdict: verdict by the decision rule.
        says: the result in a sentence or two; each of its numbers is one of the measured quantities.
        measured: the measured quantities, with the deciding one first.
        condition: the condition that completes the verdict "holds only if"; empty for other verdicts.
    """

    verdict: Verdict
    says: str
    measured: Sequence[Measured]
    condition: str = ""


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A statement and the experiment that tests it.

    Args:
        id: short identifier, such as `momentum-needs-root-kappa`.
        measure: function that runs the experiment; with argument True it runs a quick one, with fewer seeds.
        decide: decision rule: function from the measured quantities to the verdict.
        say: function from the measured quantities to the result in a sentence.
        statement: the statement, paraphrased.
        prediction: observation expected if the statement is true; fixed before the experiment is run.
        decides: the decision rule in words (effect, effect size, level and n); also fixed before the experiment is run.
        source: paper that makes, supports or refutes the statement, if there is one.
        revised: changes to the decision rule made after results were seen, with the reason; empty if there are none.
        measured: description and unit of each measured quantity.
    """

    id: str
    measure: Measurement
    decide: Callable[[Quantities], Decision]
    say: Callable[[Quantities], str]
    statement: str
    prediction: str
    decides: str
    source: str = ""
    revised: str = ""
    measured: Mapping[str, str] = field(default_factory=dict)

    def run(self, quick: bool = False) -> Conclusion:
        """Run the experiment, or a quick version of it, and return its outcome."""
        return self.conclude(self.measure(quick))

    def conclude(self, quantities: Quantities) -> Conclusion:
        """Apply the decision rule to the measured quantities and return the outcome."""
        decision = self.decide(quantities)
        verdict, condition = decision if isinstance(decision, tuple) else (decision, "")
        described = self.describe(quantities)
        return Conclusion(verdict, self.say(quantities), list(described.values()), condition)

    def describe(self, quantities: Quantities) -> dict[str, Measured]:
        """Return the measured quantities by name, with their descriptions."""
        return {
            name: replace(m, what=self.measured.get(name, m.what))
            for name, m in quantities.items()
            if isinstance(m, Measured)
        }


H = TypeVar("H", bound=Hypothesis)


class Registry(Generic[H]):
    """Hypotheses of one kind, whose texts are data and whose experiments are functions with a decorator.

    Args:
        kind: class of the hypotheses.
        texts: table of texts of each hypothesis by its id. Its keys are fields of the class, and `sentence`, the
            template of the result. Its subtable `measured` describes the measured quantities.
    """

    def __init__(self, kind: type[H], texts: Mapping[str, Mapping[str, Any]]) -> None:
        self.kind, self.texts = kind, texts
        self.registered: dict[str, H] = {}

    def experiment(
        self,
        name: str,
        decide: Callable[[Quantities], Decision],
        say: Callable[[Quantities], str] | None = None,
        **more: Any,
    ) -> Callable[[Measurement], Measurement]:
        """Register the decorated measurement as the experiment of a hypothesis.

        Args:
            name: id of the hypothesis. Names in braces in its texts are replaced by constants of the module that
                defines the measurement.
            decide: decision rule: function from the measured quantities to the verdict.
            say: function from the measured quantities to the result in a sentence; by default it fills in the template
                `sentence`.
            **more: other fields of the class.
        """

        def register(measure: Measurement) -> Measurement:
            texts = {key: text for key, text in self.texts[name].items() if isinstance(text, str)}
            template, constants = texts.pop("sentence", ""), measure.__globals__
            given: dict[str, Any] = {key: text.format(**constants) for key, text in texts.items()}
            given |= {"id": name, "measure": measure, "measured": self.texts[name].get("measured", {}), **more}
            self.registered[name] = self.kind(decide=decide, say=say or (lambda m: template.format(**m)), **given)
            return measure

        return register

    def collect(self, package: str, path: Sequence[str]) -> dict[str, H]:
        """Import all modules of a package, which registers their hypotheses; return these in the order of the texts.

        Args:
            package: name of the package.
            path: its attribute `__path__`.
        """
        for module in iter_modules(path):
            import_module(f"{package}.{module.name}")
        return {name: self.registered[name] for name in self.texts}


def text_fields(hypothesis: Hypothesis) -> dict[str, str]:
    """Return the texts of a hypothesis, without its id, by name of the field."""
    values = {each.name: getattr(hypothesis, each.name) for each in fields(hypothesis) if each.name != "id"}
    return {name: value for name, value in values.items() if isinstance(value, str)}
