"""Training runs in the record of a race: tuning runs, failures, replications, learning curves and artifacts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import field

from gradprix.training.trial import FailureKind, Outcome, Trial

from .plan_description import Value

Finals = dict[str, list[tuple[Trial, Outcome]]]
"""Final runs of each entry, in the order of the seeds."""
Outcomes = Mapping[str, Sequence[Outcome]]
"""Outcomes of the final runs of each entry, in the order of the seeds."""


class TuningRun(msgspec.Struct, frozen=True, kw_only=True):
    """One tuning run.

    Args:
        point: values of the tuned hyperparameters.
        seed: seed of the run.
        first: it ran on the first tuning seed.
        spread: its point was chosen before any score was known.
        start: loss before training; None if unknown.
        loss: validation loss; infinite if the run diverged.
        metric: validation metric.
        diverged: step at which it diverged.
        error: the reason why it could not be trained.
        failure: kind of that error.
    """

    point: dict[str, Value]
    seed: int
    first: bool
    spread: bool
    start: float | None
    loss: float
    metric: float
    diverged: int | None
    error: str | None = None
    failure: FailureKind | None = None

    @property
    def learning_rate(self) -> float:
        """Learning rate of the run."""
        return float(self.point["lr"])  # type: ignore[arg-type]


TuningRuns = Mapping[str, Sequence[TuningRun]]
"""Tuning runs of each entry, in the order of the tuner's requests."""


def losses_by_learning_rate(runs: Sequence[TuningRun]) -> dict[float, float]:
    """Return the validation loss of each learning rate on the first tuning seed: the minimum over other values."""
    losses: dict[float, float] = {}
    for run in runs:
        if run.first:
            losses[run.learning_rate] = min(run.loss, losses.get(run.learning_rate, math.inf))
    return losses


class FailedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that could not be trained and counts as diverged."""

    entry: str
    learning_rate: float = field(name="lr")
    seed: int
    error: str
    kind: FailureKind


def failed_runs(tuning_runs: TuningRuns, finals: Finals) -> tuple[FailedRun, ...]:
    """Return the training runs that failed, tuning runs first."""
    runs = [
        (name, run.learning_rate, run.seed, run.error, run.failure)
        for name, each in tuning_runs.items()
        for run in each
    ]
    runs += [(name, t.values["lr"], t.seed, o.error, o.failure) for name, pairs in finals.items() for t, o in pairs]
    return tuple(
        FailedRun(entry=name, learning_rate=lr, seed=seed, error=error, kind=kind or FailureKind.EXCEPTION)
        for name, lr, seed, error, kind in runs
        if error is not None
    )


class Rerun(msgspec.Struct, frozen=True, kw_only=True):
    """A final run and its replication in a new process: both scores, and whether all numbers agree."""

    entry: str
    seed: int
    same: bool
    metric: float | None
    again: float | None


class Curves(msgspec.Struct, frozen=True, kw_only=True):
    """Learning curves of an entry: `examples [epochs]`, the others `[seeds][epochs]`, last values repeated."""

    examples: tuple[float, ...]
    train_loss: tuple[tuple[float, ...], ...]
    valid_loss: tuple[tuple[float, ...], ...]
    valid_metric: tuple[tuple[float, ...], ...]

    @classmethod
    def from_outcomes(cls, outcomes: Sequence[Outcome]) -> "Curves":
        """Return the learning curves of the final runs of one entry."""
        longest = max((outcome.curve for outcome in outcomes), key=len)
        table = np.array([[*o.curve, *([o.curve[-1]] * (len(longest) - len(o.curve)))] for o in outcomes])
        train_loss, valid_loss, valid_metric = (
            tuple(tuple(row) for row in table[:, :, column].tolist()) for column in (1, 2, 3)
        )
        return cls(
            examples=tuple(float(point[0]) for point in longest),
            train_loss=train_loss,
            valid_loss=valid_loss,
            valid_metric=valid_metric,
        )


class Artifacts(msgspec.Struct, frozen=True, kw_only=True):
    """Artifacts by name and entry: numbers of every final run, and pictures (base64 PNG) and texts of one of them."""

    numbers: dict[str, dict[str, tuple[float | None, ...]]]
    pictures: dict[str, dict[str, str]]
    texts: dict[str, dict[str, dict[str, str]]]

    @classmethod
    def from_outcomes(cls, outcomes: Outcomes) -> "Artifacts":
        """Return the artifacts of final runs: numbers of all, None if diverged; pictures and texts of one per entry."""
        artifacts: dict[str, dict[str, Any]] = {"numbers": {}, "pictures": {}, "texts": {}}
        for name, runs in outcomes.items():
            numbers = [None if outcome.after is None else outcome.after["numbers"] for outcome in runs]
            for key in dict.fromkeys(key for row in numbers if row for key in row):
                values = tuple(None if row is None else row.get(key) for row in numbers)
                artifacts["numbers"].setdefault(key, {})[name] = values
            first = next((outcome.after for outcome in runs if outcome.after is not None), None)
            for kind in ("pictures", "texts"):
                for key, value in (first or {}).get(kind, {}).items():
                    artifacts[kind].setdefault(key, {})[name] = value
        return cls(**artifacts)
