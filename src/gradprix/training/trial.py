"""Specification and outcome of one training run."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from gradprix.rules import Rule, formula
from gradprix.tasks.schedules import passes

from .torch_optimizer_adapter import TorchOptimizerAdapter, needs_closure


@dataclass(frozen=True, eq=False)
class Trial:
    """Specification of a training run.

    Together with the task it determines the results of the run; only `entry` does not affect them.

    Args:
        rule: the optimizer.
        values: the values of all hyperparameters.
        seed: determines initial weights, split, batch order and noise.
        batch_size: examples per step; 0 for full batches.
        epochs: passes over the training examples; a number below 1 is a fraction of one.
        schedule: learning-rate schedule.
        evaluates_test: evaluate on the test examples, once, after the last step.
        entry: name of the race's entry that the run belongs to; the rule's name when empty.
        clip_norm: maximum norm of the gradient; None does not clip.
        sam_rho: radius of the neighbourhood of sharpness-aware minimization; None for the gradient at the weights.
    """

    rule: Rule | TorchOptimizerAdapter
    values: Mapping[str, Any]
    seed: int
    batch_size: int
    epochs: float
    schedule: str
    evaluates_test: bool
    entry: str = ""
    clip_norm: float | None = None
    sam_rho: float | None = None

    @property
    def entry_name(self) -> str:
        """The name of the entry as given by the user, or of the rule."""
        return self.entry or self.rule.name

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the results of the trial on a task, as JSON; `key` is its hash."""
        rest = {name: getattr(self, name) for name in ("seed", "batch_size", "epochs", "schedule")}
        optimizer = describe_optimizer(self.rule, self.values)
        if self.clip_norm is not None:
            rest["clip_norm"] = float(self.clip_norm)
        if self.sam_rho is not None:
            rest["sam_rho"] = float(self.sam_rho)
        return {"rule": self.rule.name, **optimizer, **rest, "judged": self.evaluates_test}

    @cached_property
    def key(self) -> str:
        """A hash of `identity`, the same on every machine."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:24]

    @property
    def stack_key(self) -> tuple[int, float, str, bool, tuple[bool, bool, bool]]:
        """A grouping key: trials of one task with equal keys can share a stack, whatever their optimizers."""
        steps = self.clip_norm is not None, self.sam_rho is not None, needs_closure(self.rule)
        return self.batch_size, self.epochs, self.schedule, self.evaluates_test, steps

    @cached_property
    def update_key(self) -> tuple[Any, ...]:
        """A grouping key: trials with equal keys run the same update code and differ only in its numeric inputs."""
        is_nonzero = tuple(bool(value) for value in self.values.values())
        return (*(str(self.identity.get(key)) for key in ("rule", "equations", "state", "class", "code")), is_nonzero)


def describe_optimizer(optimizer: Rule | TorchOptimizerAdapter, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of an optimizer as JSON: the equations of a rule, or name, code and version of a class."""
    if isinstance(optimizer, TorchOptimizerAdapter):
        return {**optimizer.describe(values), "values": {name: repr(value) for name, value in sorted(values.items())}}
    return {**_equations(optimizer, values), "values": {name: float(value) for name, value in values.items()}}


def _equations(rule: Rule, values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return a rule's equations and state, which depend on which of its hyperparameters are nonzero."""
    key = (rule, *map(bool, values.values()))
    if key not in _EQUATIONS:
        active = rule.active_state(values).items()
        state = [f"{name}: {'shared ' * s.shared}{s.kind} from {s.init}" for name, s in active]
        _EQUATIONS[key] = {"equations": formula(rule, **values), "state": state}
    return _EQUATIONS[key]


_EQUATIONS: dict[tuple[Any, ...], dict[str, list[str]]] = {}


class FailureKind(StrEnum):
    """Kind of failure of a run that could not be trained."""

    EXCEPTION = "exception"
    WORKER_LOST = "worker_lost"


@dataclass(frozen=True)
class Outcome:
    """Result of a training run.

    Args:
        curve: after each epoch: examples seen, mean training loss over the epoch, validation loss, validation metric;
            NaN after divergence.
        test_loss: test loss after the last step; None for training loops and for runs that are not evaluated on test
            examples; infinite after divergence.
        test_metric: test metric after the last step; None if the run is not evaluated on test examples; the task's
            baseline after divergence.
        diverged: first step, counted from 1, with a non-finite training loss; None if there is none.
        test_parts: the metric on each of several parts of an official test set; None without such a set.
        after: artifacts that the task computed from the trained model; None if there are none.
        tested: True if the test metric is computed on examples that were not used for tuning.
        error: the reason why the run could not be trained, which counts as divergence; None if it was trained.
        failure: kind of the error; None if the run was trained.
        start: training loss of the first step, before any update; None if unknown.
        gradients: number of times that the gradient of a batch was computed; None if unknown, and for training loops.
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
    failure: FailureKind | None = None
    gradients: int | None = None

    @property
    def valid_loss(self) -> float:
        """The validation loss after the last step; infinite if the run diverged."""
        loss = self.curve[-1][2]
        return loss if self.diverged is None and loss == loss else float("inf")

    @property
    def valid_metric(self) -> float:
        """The validation metric after the last step, even if the run diverged."""
        return self.curve[-1][3]

    def to_json(self) -> str:
        """Serialize to one line of JSON, with infinities and NaN as Python writes them."""
        return json.dumps(vars(self))

    @classmethod
    def from_error(
        cls, trial: Trial, baseline: float | None, error: str, failure: FailureKind = FailureKind.EXCEPTION
    ) -> "Outcome":
        """Return the outcome of a trial that could not be trained: it counts as diverged in the first step."""
        curve = [(0, math.nan, math.nan, math.nan)] * passes(trial.epochs)
        loss, metric = (math.inf, baseline) if trial.evaluates_test else (None, None)
        return cls(curve, loss, metric, 1, error=error, failure=failure)

    @classmethod
    def from_json(cls, text: str) -> "Outcome":
        """Parse the output of `to_json`."""
        data = json.loads(text)
        return cls([tuple(point) for point in data.pop("curve")], **data)
