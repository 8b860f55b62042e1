"""One network trained once, and what came of it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from gradprix.rules import Rule, formula


@dataclass(frozen=True, eq=False)
class Trial:
    """Everything that a run's numbers depend on, besides the task.

    Args:
        rule: what steps the weights.
        values: all of its hyperparameters.
        seed: decides initial weights, split and batch order.
        batch_size: examples a step; 0 for all.
        epochs: passes over the training examples.
        schedule: how the learning rate goes.
        judged: whether the test examples are scored (once, after the last step).
    """

    rule: Rule
    values: Mapping[str, float | bool]
    seed: int
    batch_size: int
    epochs: int
    schedule: str
    judged: bool

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the key is made of."""
        equations = formula(self.rule, **self.values)
        rest = {k: v for k, v in vars(self).items() if k not in ("rule", "values", "identity", "key")}
        state = [f"{name}: {s.kind} from {s.init}" for name, s in self.rule.kept(self.values).items()]
        values = {name: float(value) for name, value in self.values.items()}
        return {"rule": self.rule.name, "equations": equations, "state": state, "values": values, **rest}

    @cached_property
    def key(self) -> str:
        """The same for the same trial, on any machine."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Args:
        curve: after each epoch: examples seen, mean training loss over the epoch, validation loss, validation metric.
        test_loss: after the last step; None unless judged.
        test_metric: after the last step; None unless judged; the task's baseline if it diverged.
        diverged: the first step, from 1, whose training loss was not finite; None if all were.
    """

    curve: list[tuple[int, float, float, float]]
    test_loss: float | None
    test_metric: float | None
    diverged: int | None

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
    def from_json(cls, text: str) -> "Outcome":
        """What `to_json` wrote."""
        read = json.loads(text)
        return cls([tuple(point) for point in read.pop("curve")], **read)
