"""Base class of loggers."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from gradprix.race.plan import Plan
    from gradprix.race.saved_result import SavedResult

    from .training_run import TrainingRun


class Logger:
    """Base class of loggers. A subclass overrides the methods whose calls it needs.

    All calls of a logger come from one thread of its own, so that a slow logger does not delay the race. If a call
    raises an exception, the race continues without the logger, after a warning.

    Args:
        folder: folder of the logger's files. Default: `name`, in the folder of the race.

    Attributes:
        folder_per_task: True if each task has a folder of its own in `folder`, because the files of its races have the
            same names as those of others.
        root: folder of the logger's files in the current race, as an existing folder or one to be created.
    """

    name: ClassVar[str] = "log"
    folder_per_task: ClassVar[bool] = False
    folder: Path | None = None
    root: Path = Path()

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = None if folder is None else Path(folder)

    @property
    def instructions(self) -> str:
        """Command that displays the log, or empty; printed when the race starts."""
        return ""

    def on_race_start(self, plan: "Plan") -> None:
        """Receive the plan of a race, before the first run.

        Args:
            plan: plan of the race, or of tuning one optimizer.
        """

    def on_run_end(self, run: "TrainingRun") -> None:
        """Receive a finished training run. Each run of a race comes once, those of earlier calls included.

        Args:
            run: training run. `run.is_reused` is True if it was trained by an earlier call.
        """

    def on_race_end(self, result: "SavedResult[Any]") -> None:
        """Receive the result, after the last run.

        Args:
            result: result of the race, or of tuning one optimizer.
        """


def race_id(plan: "Plan", folder: Path) -> str:
    """Return an identifier of a race, which differs from that of another task or in another folder."""
    return hashlib.sha256(f"{plan.task.fingerprint} {folder.absolute()}".encode()).hexdigest()[:8]
