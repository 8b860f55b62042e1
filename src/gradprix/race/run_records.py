"""Training runs in the record of a race: tuning runs, failures, replications, learning curves and artifacts."""

import math
from collections.abc import Sequence

import msgspec
from msgspec import field

from gradprix.training.trial import FailureKind

from .plan_description import Value


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


class Artifacts(msgspec.Struct, frozen=True, kw_only=True):
    """Artifacts by name and entry: numbers of every final run, and pictures (base64 PNG) and texts of one of them."""

    numbers: dict[str, dict[str, tuple[float | None, ...]]]
    pictures: dict[str, dict[str, str]]
    texts: dict[str, dict[str, dict[str, str]]]
