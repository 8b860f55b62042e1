"""Callbacks of a trainer: progress reports, and a base class for others."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from .trainer import Trainer

REPORT_EVERY = 64
"""Maximum number of steps between two progress reports."""


class Callback:
    """Base class of a trainer's callbacks: all methods do nothing."""

    def on_before_optimizer_step(self, trainer: "Trainer", gradients: Mapping[str, Tensor], factor: float) -> None:
        """Observe the gradients, `[rows, ...]` each, and the schedule's factor of the learning rates.

        Not called in a step in which a diverged model fails, so that there are no gradients.
        """

    def on_step_end(self, trainer: "Trainer", losses: Tensor) -> None:
        """Observe the models after a step, and the losses before it, `[rows]`."""

    def on_epoch_end(self, trainer: "Trainer") -> None:
        """Observe the models after an epoch and its validation."""


def observes_gradients(callback: Callback) -> bool:
    """Return True if a callback observes gradients, which are otherwise not kept for all models at once."""
    return type(callback).on_before_optimizer_step is not Callback.on_before_optimizer_step


class Progress(Callback):
    """Reports the completed share of the training from time to time.

    Args:
        report: called with the share.
    """

    def __init__(self, report: Callable[[float], None]) -> None:
        self.report = report

    def on_step_end(self, trainer: "Trainer", losses: Tensor) -> None:
        """Report the share, at least once an epoch."""
        if trainer.step % min(REPORT_EVERY, trainer.steps_per_epoch) == 0:
            self.report(trainer.step / trainer.total_steps)
