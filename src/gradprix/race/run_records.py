"""Training runs in the record of a race: tuning runs, failed runs, replications, learning curves and artifacts."""

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


def outcomes_by_entry(runs: Finals) -> dict[str, list[Outcome]]:
    """Return the outcomes of runs without their trials, in the same order."""
    return {name: [outcome for _, outcome in each] for name, each in runs.items()}


class TuningRun(msgspec.Struct, frozen=True, kw_only=True):
    """Tuning run.

    Args:
        point: values of the tuned hyperparameters.
        seed: seed of the run.
        first: True if the run used the first tuning seed.
        spread: True if the run belongs to the first phase of tuning, whose points do not depend on any score.
        start: loss before training; None if unknown.
        loss: validation loss; infinite if the run diverged.
        metric: validation metric.
        diverged: step at which the run diverged; None if it did not diverge.
        error: message of the error because of which the model could not be trained; None if there was none.
        failure: kind of the error; None if there was none.
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
        """Learning rate of the run; NaN if it is not tuned."""
        return float(self.point.get("lr", math.nan))  # type: ignore[arg-type]

    @property
    def is_scored(self) -> bool:
        """True if the run has a finite metric and did not diverge."""
        return self.diverged is None and math.isfinite(self.metric)


TuningRuns = Mapping[str, Sequence[TuningRun]]
"""Tuning runs of each entry, in the order in which the tuner requested them."""


def losses_by_learning_rate(runs: Sequence[TuningRun]) -> dict[float, float]:
    """Return the validation loss of each learning rate on the first tuning seed.

    If other hyperparameters are tuned as well, it is the minimum over their values.
    """
    losses: dict[float, float] = {}
    for run in runs:
        if run.first and "lr" in run.point:
            losses[run.learning_rate] = min(run.loss, losses.get(run.learning_rate, math.inf))
    return losses


class FailedRun(msgspec.Struct, frozen=True, kw_only=True):
    """Training run that ended with an error. It counts as diverged."""

    entry: str
    learning_rate: float | None = field(name="lr")
    seed: int
    error: str
    kind: FailureKind


def failed_runs(tuning_runs: TuningRuns, *finals: Finals) -> tuple[FailedRun, ...]:
    """Return the training runs that failed, tuning runs first, then those of each group of final runs."""
    runs = [
        (name, run.learning_rate if "lr" in run.point else None, run.seed, run.error, run.failure)
        for name, each in tuning_runs.items()
        for run in each
    ]
    runs += [
        (name, trial.values.get("lr"), trial.seed, outcome.error, outcome.failure)
        for group in finals
        for name, pairs in group.items()
        for trial, outcome in pairs
    ]
    return tuple(
        FailedRun(entry=name, learning_rate=lr, seed=seed, error=error, kind=kind or FailureKind.EXCEPTION)
        for name, lr, seed, error, kind in runs
        if error is not None
    )


class Rerun(msgspec.Struct, frozen=True, kw_only=True):
    """Comparison of a final run with its replication in a new process.

    Args:
        entry: name of the entry.
        seed: seed of the run.
        same: True if all numbers of both runs agree.
        metric: test metric of the final run; None if it diverged.
        again: test metric of the replication; None if it diverged.
    """

    entry: str
    seed: int
    same: bool
    metric: float | None
    again: float | None


class Curves(msgspec.Struct, frozen=True, kw_only=True):
    """Learning curves of the final runs of an entry.

    If a run ended early, its last values are repeated.

    Args:
        examples: number of training examples seen at each evaluation, `[epochs]`.
        train_loss: training loss, `[seeds][epochs]`.
        valid_loss: validation loss, `[seeds][epochs]`.
        valid_metric: validation metric, `[seeds][epochs]`.
    """

    examples: tuple[float, ...]
    train_loss: tuple[tuple[float, ...], ...]
    valid_loss: tuple[tuple[float, ...], ...]
    valid_metric: tuple[tuple[float, ...], ...]

    @classmethod
    def from_outcomes(cls, outcomes: Sequence[Outcome]) -> "Curves":
        """Collect the learning curves of the final runs of one entry."""
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
    """Additional results of final runs, computed by the function `after` of a task.

    Args:
        numbers: for each measure and entry, the value in every final run; None if the run has no value.
        pictures: for each kind of picture and entry, a PNG image of one final run, base64-encoded.
        texts: for each kind of text and entry, the texts of one final run by their source texts.
    """

    numbers: dict[str, dict[str, tuple[float | None, ...]]]
    pictures: dict[str, dict[str, str]]
    texts: dict[str, dict[str, dict[str, str]]]

    @classmethod
    def from_outcomes(cls, outcomes: Outcomes) -> "Artifacts":
        """Collect the artifacts of final runs.

        Pictures and texts are those of each entry's first final run that has any artifacts.
        """
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
