"""One network trained once, and what came of it."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from gradprix.rules import Rule, formula
from gradprix.tasks.schedules import passes

from .torch_optimizer_adapter import Anyone


@dataclass(frozen=True, eq=False)
class Trial:
    """Everything that a run's numbers depend on, besides the task; and the name of its entry, for messages.

    Args:
        rule: what steps the weights.
        values: all of its hyperparameters.
        seed: decides initial weights, split, batch order and noise.
        batch_size: examples a step; 0 for all.
        epochs: passes over the training examples; a number below 1 is a part of one.
        schedule: how the learning rate goes.
        judged: whether the test examples are scored (once, after the last step).
        entry: the name of the entry that the run belongs to, on which no number depends; the rule's when empty.
    """

    rule: Rule | Anyone
    values: Mapping[str, Any]
    seed: int
    batch_size: int
    epochs: float
    schedule: str
    judged: bool
    entry: str = ""

    @property
    def entry_name(self) -> str:
        """The name of the entry as the user wrote it, or of the rule."""
        return self.entry or self.rule.name

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the key is made of."""
        rest = {name: getattr(self, name) for name in ("seed", "batch_size", "epochs", "schedule", "judged")}
        return {"rule": self.rule.name, **described(self.rule, self.values), **rest}

    @cached_property
    def key(self) -> str:
        """The same for the same trial, on any machine."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:24]


def described(optimizer: Rule | Anyone, values: Mapping[str, Any]) -> dict[str, Any]:
    """What steps the weights, as JSON: a rule's equations, or where another class's code is from."""
    if isinstance(optimizer, Anyone):
        return {**optimizer.describe(values), "values": {name: repr(value) for name, value in sorted(values.items())}}
    return {**_equations(optimizer, values), "values": {name: float(value) for name, value in values.items()}}


def _equations(rule: Rule, values: Mapping[str, Any]) -> dict[str, list[str]]:
    """A rule's equations and state, which depend on which of its hyperparameters are not zero."""
    key = (rule, *map(bool, values.values()))
    if key not in _WRITTEN:
        state = [f"{name}: {s.kind} from {s.init}" for name, s in rule.kept(values).items()]
        _WRITTEN[key] = {"equations": formula(rule, **values), "state": state}
    return _WRITTEN[key]


_WRITTEN: dict[tuple[Any, ...], dict[str, list[str]]] = {}


def form(trial: Trial) -> tuple[Any, ...]:
    """Trials of one form are stepped by the same code."""
    truth = tuple(bool(value) for value in trial.values.values())
    return (*(str(trial.identity.get(key)) for key in ("rule", "equations", "state", "class")), truth)


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Args:
        curve: after each epoch: examples seen, mean training loss over the epoch, validation loss, validation metric;
            not numbers once it has diverged.
        test_loss: after the last step; None unless judged.
        test_metric: after the last step; None unless judged; the task's baseline if it diverged.
        diverged: the first step, from 1, whose training loss was not finite; None if all were.
        test_parts: the metric on each of some parts of an official test set, where there is one.
        after: what else the task found of the trained network.
        tested: whether it was judged by examples that nothing is tuned by.
        error: why there is no more of it than of a run that diverged: it could not be trained.
        start: the training loss of the first step, before anything is learnt; None where it is not known.
    """

    curve: list[tuple[int, float, float, float]]
    test_loss: float | None
    test_metric: float | None
    diverged: int | None
    test_parts: list[float] | None = None
    after: dict[str, Any] | None = None
    tested: bool = True
    error: str | None = None
    start: float | None = None

    @property
    def valid_loss(self) -> float:
        """The validation loss after the last step; infinite if the run diverged."""
        loss = self.curve[-1][2]
        return loss if self.diverged is None and loss == loss else float("inf")

    @property
    def valid_metric(self) -> float:
        """The validation metric after the last step, whatever the run came to."""
        return self.curve[-1][3]

    def to_json(self) -> str:
        """One line of JSON; infinities and not-a-numbers are kept as Python writes them."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, trial: Trial, baseline: float | None, error: str) -> "Outcome":
        """Of a trial that could not be trained: as of one that diverged at once."""
        curve = [(0, math.nan, math.nan, math.nan)] * passes(trial.epochs)
        loss, metric = (math.inf, baseline) if trial.judged else (None, None)
        return cls(curve, loss, metric, 1, error=error)

    @classmethod
    def from_json(cls, text: str) -> "Outcome":
        """What `to_json` wrote."""
        read = json.loads(text)
        return cls([tuple(point) for point in read.pop("curve")], **read)
