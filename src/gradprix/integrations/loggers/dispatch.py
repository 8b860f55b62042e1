"""Calls of the loggers of a race, each in a thread of its own."""

import queue
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .csv_files import CSV
from .logger import Logger
from .mlflow import MLflow
from .tensorboard import TensorBoard
from .training_run import describe_run
from .wandb import WandB

if TYPE_CHECKING:
    from gradprix.race.plan import Plan
    from gradprix.race.saved_result import SavedResult
    from gradprix.training.trial import Outcome, Trial

BY_NAME: dict[str, type[Logger]] = {each.name: each for each in (TensorBoard, WandB, MLflow, CSV)}


def make_loggers(log: "str | Logger | Iterable[str | Logger] | None") -> list[Logger]:
    """Return the loggers that the argument `log` of a race selects.

    Args:
        log: names, loggers, or both; see `BY_NAME` for the names.

    Raises:
        ValueError: if a name is unknown.
        TypeError: if an element is neither a name nor a logger.
        ImportError: if the library of a logger is not installed.
    """
    given = [] if log is None else [log] if isinstance(log, str | Logger) else list(log)
    loggers: list[Logger] = []
    for each in given:
        if isinstance(each, str) and each not in BY_NAME:
            raise ValueError(f"log = {each!r}: there is no such logger. Give one of {', '.join(BY_NAME)}.")
        if not isinstance(each, str | Logger):
            raise TypeError(
                f"log = {each!r}: give one of {', '.join(BY_NAME)}, or an object of a subclass of "
                "gp.integrations.loggers.Logger."
            )
        loggers.append(BY_NAME[each]() if isinstance(each, str) else each)
    return loggers


class Loggers:
    """Context manager that passes the events of a race to its loggers.

    If the context ends with an exception, calls that have not begun are dropped.

    Args:
        loggers: loggers of the race.
        plan: plan of the race.
        out: folder of the race; None stands for `runs/TASK`.
    """

    def __init__(self, loggers: Sequence[Logger], plan: "Plan", out: Path | None) -> None:
        self.plan, self._logged = plan, set[tuple[str, str]]()
        for logger in loggers:
            if logger.folder is None:
                logger.root = (out or Path("runs", plan.task.name)) / logger.name
            else:
                logger.root = logger.folder / plan.task.name if logger.folder_per_task else logger.folder
        self._threads = [_LoggerThread(logger) for logger in loggers]

    def __enter__(self) -> "Loggers":
        return self

    def start(self) -> None:
        """Print how to open the logs, and start the loggers."""
        for thread in self._threads:
            if text := thread.logger.instructions:
                print(f"{type(thread.logger).__name__}: {text}", file=sys.stderr, flush=True)
            thread.start()
            thread.submit("on_race_start", self.plan)

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for thread in self._threads:
            thread.finish(drop=error is not None)

    def log_runs(
        self,
        phase: str,
        trials: "Iterable[Trial]",
        finished: "Mapping[str, Outcome]",
        saved: Collection[str],
    ) -> None:
        """Log those trials that are finished and not logged yet.

        Args:
            phase: phase of the race.
            trials: trials of the phase.
            finished: outcome of each finished trial, by its key.
            saved: keys of the trials that were finished by an earlier call.
        """
        if not self._threads:
            return
        for trial in trials:
            identity = trial.entry_name, trial.key
            if trial.key in finished and identity not in self._logged:
                self._logged.add(identity)
                run = describe_run(self.plan, phase, trial, finished[trial.key], trial.key in saved)
                self._submit("on_run_end", run)

    def log_result(self, result: "SavedResult[Any]") -> None:
        """Log the result of the race, for which the end of the context waits."""
        self._submit("on_race_end", result)

    def _submit(self, method: str, argument: Any) -> None:
        for thread in self._threads:
            thread.submit(method, argument)


class _LoggerThread(threading.Thread):
    """Thread that calls the methods of a logger, until the first exception."""

    def __init__(self, logger: Logger) -> None:
        super().__init__(name=f"gradprix logger {logger.name}", daemon=True)
        self.logger = logger
        self.calls: queue.SimpleQueue[tuple[Callable[..., None], Any] | None] = queue.SimpleQueue()
        self.stopped = False

    def submit(self, method: str, argument: Any) -> None:
        """Append a call of a method to the queue."""
        self.calls.put((getattr(self.logger, method), argument))

    def finish(self, drop: bool) -> None:
        """Wait until all calls are done, or only the current one."""
        self.stopped = self.stopped or drop
        self.calls.put(None)
        if not drop and self.is_alive():
            self.join()

    def run(self) -> None:
        """Make the calls in the queue."""
        while call := self.calls.get():
            method, argument = call
            if self.stopped:
                continue
            try:
                method(argument)
            except Exception as error:  # a tracker that fails must not end the race
                self.stopped = True
                message = str(error).strip().partition("\n")[0]
                print(
                    f"gradprix: warning: {type(self.logger).__name__} failed, so that the rest of the race is not "
                    f"logged there: {type(error).__name__}: {message}",
                    file=sys.stderr,
                    flush=True,
                )
