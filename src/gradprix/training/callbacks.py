"""Callbacks of a trainer: progress reports, and a base class for others."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from .trainer import Trainer

REPORT_EVERY, REPORT_SECONDS = 64, 1.0
"""Maximum number of steps between two progress reports, and seconds after which the next step is reported."""


class Callback:
    """Base class of a trainer's callbacks: all methods do nothing."""

    def on_before_optimizer_step(self, trainer: "Trainer", gradients: Mapping[str, Tensor], factor: float) -> None:
        """Observe the gradients before an optimizer step.

        This method is not called if a step has no gradients because the code of a diverged model fails.

        Args:
            trainer: the trainer.
            gradients: gradients by parameter name, `[rows, ...]` each.
            factor: the schedule's multiplier of the learning rates.
        """

    def on_step_end(self, trainer: "Trainer", losses: Tensor) -> None:
        """Observe the models after an optimizer step.

        Args:
            trainer: the trainer.
            losses: losses of the batch before the step, `[rows]`.
        """

    def on_epoch_end(self, trainer: "Trainer") -> None:
        """Observe the models at the end of an epoch, after their evaluation on the validation examples."""


def observes_gradients(callback: Callback) -> bool:
    """Return True if a callback overrides `on_before_optimizer_step`.

    Without such a callback, the gradients of all models need not be in memory at the same time.
    """
    return type(callback).on_before_optimizer_step is not Callback.on_before_optimizer_step


class Progress(Callback):
    """Reports the progress of the training from time to time.

    Args:
        report: called with the completed fraction of the training, between 0 and 1.
    """

    def __init__(self, report: Callable[[float], None]) -> None:
        self.report = report
        self.reported = time.monotonic()

    def on_step_end(self, trainer: "Trainer", losses: Tensor) -> None:
        """Report the progress every `REPORT_EVERY` steps, or more often if epochs are shorter or steps are slow."""
        now = time.monotonic()
        if trainer.step % min(REPORT_EVERY, trainer.steps_per_epoch) == 0 or now - self.reported >= REPORT_SECONDS:
            self.reported = now
            self.report(trainer.step / trainer.total_steps)
