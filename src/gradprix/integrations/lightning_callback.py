"""Lightning callback that reports a validated metric to a race."""

import sys
from typing import Any

from .reports import Report


class EpochReports:
    """Hooks of a callback that report a logged value at the end of each epoch in which the model was validated.

    Args:
        report: function that takes the numbers; the training stops if it returns False.
        valid: name of the logged value.
    """

    def __init__(self, report: Report, valid: str) -> None:
        self.report, self.valid = report, valid
        self.is_validated = False

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Remember that the logged value is new."""
        self.is_validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Report the value.

        Raises:
            ValueError: if the module does not log it.
        """
        if not self.is_validated:
            return
        self.is_validated = False
        logged = trainer.callback_metrics
        if self.valid not in logged:
            raise ValueError(
                f"valid={self.valid!r}: {type(pl_module).__name__} logs {', '.join(sorted(logged)) or 'nothing'}."
            )
        if not self.report({"valid": float(logged[self.valid])}):
            trainer.should_stop = True


def epoch_reports(trainer: Any, report: Report, valid: str) -> Any:
    """Return a callback with the hooks of `EpochReports`, of the package of Lightning that a trainer is from."""
    package = type(trainer).__module__.partition(".")[0]
    library = sys.modules["lightning.pytorch" if package == "lightning" else package]
    return type("EpochReports", (EpochReports, library.Callback), {})(report, valid)
