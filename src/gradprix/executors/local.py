"""Lanes in processes of this machine."""

import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from joblib.externals.loky.process_executor import TerminatedWorkerError

from gradprix.tasks import Task
from gradprix.tasks.loop import home
from gradprix.training.autotune import Shape, shape
from gradprix.training.model_stack import Form
from gradprix.training.trial import Outcome, Trial

from .executor import Engine, Found, WorkerError, answered, train
from .fresh_process import FreshProcesses
from .scheduler import LOSSES, Part
from .worker_processes import workers

KILLED = (
    "worker processes were killed again and again, probably because memory ran out. What is finished is kept; "
    "the same command goes on from there. Give it less with --memory, in GB."
)

FRESH = FreshProcesses()


class Local(Engine):
    """Lanes in processes of this machine, each on one thread.

    Args:
        processes: how many at most; as many as the machine has cores when None.
        memory: how much the race may take, in GB; half of what is free when None.
    """

    together = True

    def __init__(self, processes: int | None = None, memory: float | None = None) -> None:
        super().__init__()
        if processes is not None and processes < 1:
            raise ValueError(f"processes = {processes}: it must be 1 or more.")
        if memory is not None and not memory > 0:
            raise ValueError(f"memory = {memory}: it must be more than 0 (GB).")
        self.processes = processes or joblib.cpu_count()
        self.bytes = None if memory is None else memory * 1e9
        self._executor: Any = None
        self._jobs: dict[Future[Found], Part] = {}
        self._slots: dict[Part, int] = {}
        self._shares: np.memmap[Any, Any] | None = None

    @property
    def workers(self) -> int:
        """How many processes there are: fewer where more would not fit, or get in each other's way."""
        wanted = [self.shapes[work.kind] for work in self.schedule.works if work.kind in self.shapes]
        return min((shape.processes for shape in wanted), default=self.processes)

    @property
    def memory(self) -> float | None:
        """How many bytes the race may take; None for half of what is free."""
        return self.bytes

    def shape(self, task: Task, trials: Sequence[Trial], how: Form) -> Shape:
        """As many networks in a lane as pay, and as many processes, of what fits."""
        return shape(task, trials, how, self.processes, self.bytes, self.everywhere)

    def everywhere(self, count_: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What a function answers in so many worker processes at once."""
        for death in count(1):
            try:
                executor = workers(self.processes)
                jobs = [executor.submit(_at_home, function, args) for _ in range(count_)]
                return [job.result() for job in jobs]
            except TerminatedWorkerError as error:
                if death == LOSSES:
                    raise WorkerError(KILLED) from error
            except BrokenProcessPool as error:
                raise _unsent(error) from error
        return []

    def submit_fresh(self, function: Callable[..., Any], *args: Any) -> "Future[Any] | None":
        """Call a function in a process in which nothing has run before."""
        return FRESH.submit(function, *args)

    def stop_fresh(self) -> None:
        """End what `submit_fresh` began."""
        FRESH.stop()

    def start(self, part: Part) -> None:
        """Have a process train it, which says how far it is in a file."""
        if self._shares is None:
            handle, file = tempfile.mkstemp(prefix="gradprix-")
            os.close(handle)
            weakref.finalize(self, Path(file).unlink, missing_ok=True)
            self._shares = np.memmap(file, dtype=np.float64, mode="w+", shape=self.processes)
        slot = next(i for i in range(self.processes) if i not in self._slots.values())
        self._shares[slot] = 0
        self._slots[part] = slot
        task, how = part.work.about
        args = (task, part.trials, how, Path(str(self._shares.filename)), slot)
        self._executor = workers(self.workers)
        self._jobs[self._executor.submit(_at_home, _work, args)] = part

    def ended(self, seconds: float) -> list[tuple[Part, Found]]:
        """What has ended. Of a process that was killed the others have ended with it."""
        found: list[tuple[Part, Found]] = []
        done = wait(self._jobs, seconds, FIRST_COMPLETED).done
        if any(isinstance(job.exception(), TerminatedWorkerError) for job in done):
            done = wait(self._jobs).done
        for job in done:
            part, error = self._jobs.pop(job), job.exception()
            del self._slots[part]
            if isinstance(error, TerminatedWorkerError):
                error = WorkerError(KILLED)
            elif isinstance(error, BrokenProcessPool):
                raise _unsent(error) from error
            elif error is not None and not isinstance(error, Exception):
                raise error
            found.append((part, job.result() if error is None else error))
        for part, slot in self._slots.items():
            part.share = float(self._shares[slot])  # type: ignore[index]  # it is there once something has started
        return found

    def stop(self, parts: Sequence[Part]) -> None:
        """End the processes, if they are at any of it."""
        if parts:
            self._executor.shutdown(kill_workers=True)
            self._jobs.clear()
            self._slots.clear()


def _unsent(error: BrokenProcessPool) -> WorkerError:
    why = str(error.__cause__ or error).strip().splitlines()[-1]
    return WorkerError(f"the task or an optimizer cannot be sent to another process: {why}")


def _at_home(function: Callable[..., Any], args: Sequence[Any]) -> Any:
    """What a function answers in a worker, given the worker's own copy of a task."""
    return answered(function, [home(arg) if isinstance(arg, Task) else arg for arg in args])


def _work(task: Task, trials: list[Trial], how: Form, file: Path, slot: int) -> list[Outcome]:
    """Train trials, and say in a file how far that is."""
    shares = np.memmap(file, dtype=np.float64, mode="r+")

    def report(share: float) -> None:
        shares[slot] = share

    return train(task, trials, how, report)
