"""Training run of a race, in the form that loggers receive."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gradprix.tasks.loop import Loop

if TYPE_CHECKING:
    from gradprix.race.plan import Plan
    from gradprix.training.trial import Outcome, Trial


@dataclass(frozen=True)
class TrainingRun:
    """Finished training run.

    Args:
        id: identifier of the run. The same run has the same identifier when a race is resumed.
        entry: name of the entry.
        phase: `"tuning"`, `"final"` (held-out seeds), `"quarter"` (a quarter of the examples) or `"equal time"`.
        hyperparameters: all hyperparameters of the run, tuned or not: those of the optimizer, batch size, schedule,
            epochs, seed and, if gradients are clipped, `clip_norm`.
        curve: numbers after each epoch, by name: `epoch`, `examples` (not for a custom training loop), `train/loss`,
            `valid/loss` and the validation metric, such as `valid/accuracy`. Numbers that are not finite are left out.
        test: numbers on the test examples, by name, such as `test/loss` and `test/accuracy`, and further results such
            as `test/accuracy_EMA`. Empty for tuning runs.
        diverged: step at which the run diverged; None if it did not diverge.
        error: message of the error because of which the model could not be trained; None if there was none.
        is_reused: True if an earlier call trained the model. A logger that has the run already can ignore it.
    """

    id: str
    entry: str
    phase: str
    hyperparameters: dict[str, Any]
    curve: list[dict[str, float]]
    test: dict[str, float]
    diverged: int | None
    error: str | None
    is_reused: bool

    @property
    def name(self) -> str:
        """Name for people: entry, learning rate (if there is one) and seed."""
        lr = f"lr={self.hyperparameters['lr']:g} " if "lr" in self.hyperparameters else ""
        return f"{self.entry} {lr}seed={self.hyperparameters['seed']}"

    @property
    def tags(self) -> dict[str, str]:
        """Entry, phase, and if the run diverged or failed, the step or the error."""
        tags = {"entry": self.entry, "phase": self.phase, "diverged": self.diverged, "error": self.error}
        return {name: str(value) for name, value in tags.items() if value is not None}

    @property
    def last(self) -> dict[str, float]:
        """Last finite value of each number, by name, without `epoch` and `examples`."""
        values = {name: value for point in self.curve for name, value in point.items() if "/" in name}
        return values | self.test


def describe_run(plan: "Plan", phase: str, trial: "Trial", outcome: "Outcome", is_reused: bool) -> TrainingRun:
    """Return the description of a finished training run for loggers.

    Args:
        plan: plan of the race.
        phase: phase of the race.
        trial: specification of the run.
        outcome: outcome of the run.
        is_reused: True if an earlier call trained the model.
    """
    is_loop = isinstance(plan.task, Loop)
    metric = metric_key(plan.task.metric.name)
    if phase == "final" and trial.epochs < plan.task.epochs:
        phase = "quarter"
    identity = f"{plan.task.fingerprint} {trial.entry_name} {phase} {trial.key}"
    training: dict[str, Any] = {"batch_size": trial.batch_size, "schedule": trial.schedule, "epochs": trial.epochs}
    if trial.clip_norm is not None:
        training["clip_norm"] = trial.clip_norm
    more = {f"test/{metric_key(name)}": value for name, value in (outcome.after or {}).get("numbers", {}).items()}
    curve = [
        {
            "epoch": min(epoch, trial.epochs or epoch),
            **({} if is_loop else {"examples": examples}),
            **_finite({"train/loss": train_loss, "valid/loss": loss, f"valid/{metric}": score}),
        }
        for epoch, (examples, train_loss, loss, score) in enumerate(outcome.curve, start=1)
    ]
    return TrainingRun(
        id=hashlib.sha256(identity.encode()).hexdigest()[:16],
        entry=trial.entry_name,
        phase=phase,
        hyperparameters={**trial.values, **({} if is_loop else training), "seed": trial.seed},
        curve=[point for point in curve if any("/" in name for name in point)],
        test=_finite({"test/loss": outcome.test_loss, f"test/{metric}": outcome.test_metric, **more}),
        diverged=outcome.diverged,
        error=outcome.error,
        is_reused=is_reused,
    )


def metric_key(name: str) -> str:
    """Return the name of a metric without spaces and the word "test", as trackers permit: `accuracy`.

    A metric that is called "loss" becomes `loss_metric`, since `loss` is the loss that is trained.
    """
    key = re.sub(r"[^\w.-]+", "_", name.removeprefix("test ")).strip("_")
    return f"{key}_metric" if key in ("loss", "") else key


def _finite(values: Mapping[str, float | None]) -> dict[str, float]:
    """Return the values that are finite numbers."""
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}
