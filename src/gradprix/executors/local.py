"""Executor for worker processes on this machine."""

import contextlib
import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from pathlib import Path
from pickle import PicklingError
from typing import Any

import joblib
import numpy as np
from joblib.externals.loky.process_executor import TerminatedWorkerError

from gradprix.tasks import Task
from gradprix.tasks.loop import cache_problem
from gradprix.training import StackLayout, choose_layout
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trial import Outcome, Trial

from .executor import Executor, StackResult, WorkerError, call_with_picklable_errors, train
from .fresh_process import FreshProcesses
from .scheduler import LOSSES, TrialStack
from .worker_processes import workers

KILLED = (
    "worker processes were killed again and again, probably because memory ran out. Finished training runs are "
    "saved; run the same command to resume. Limit the memory of the race with --memory, in GB."
)

FRESH = FreshProcesses()


class Local(Executor):
    """Executor that trains in worker processes on this machine, with one thread per process.

    Args:
        processes: maximum number of processes; the number of CPU cores if None.
        memory: memory limit of a race in GB; half of the free memory if None.
    """

    workers_die_together = True

    def __init__(self, processes: int | None = None, memory: float | None = None) -> None:
        super().__init__()
        if processes is not None and processes < 1:
            raise ValueError(f"processes = {processes}: it must be 1 or more.")
        if memory is not None and not memory > 0:
            raise ValueError(f"memory = {memory}: it must be more than 0 (GB).")
        self.processes = processes or joblib.cpu_count()
        self.bytes = None if memory is None else memory * 1e9
        self._executor: Any = None
        self._jobs: dict[Future[StackResult], TrialStack] = {}
        self._slots: dict[TrialStack, int] = {}
        self._shares: np.memmap[Any, Any] | None = None

    @property
    def workers(self) -> int:
        """The number of worker processes, limited so that they fit into memory and do not slow each other down."""
        layouts = [self.layouts[group.kind] for group in self.scheduler.groups if group.kind in self.layouts]
        return min((layout.processes for layout in layouts), default=self.processes)

    @property
    def memory(self) -> float | None:
        """The memory limit of a race, in bytes; None for half of the free memory."""
        return self.bytes

    def choose_layout(self, task: Task, trials: Sequence[Trial], mode: ExecutionMode) -> StackLayout:
        """Choose the fastest stack size and number of processes that fit into memory."""
        return choose_layout(task, trials, mode, self.processes, self.bytes, self.call_workers)

    def call_workers(self, count_: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Call a function in `count_` worker processes at the same time and return the results."""
        for death in count(1):
            try:
                executor = workers(self.processes)
                jobs = [executor.submit(_call_with_local_tasks, function, args) for _ in range(count_)]
                return [job.result() for job in jobs]
            except TerminatedWorkerError as error:
                if death == LOSSES:
                    raise WorkerError(KILLED) from error
            except (BrokenProcessPool, PicklingError) as error:
                raise _serialization_error(error) from error
        return []

    @property
    def idle_workers(self) -> int:
        """The number of worker processes that remain idle while one of them runs a call."""
        return self.processes - 1

    def warm_up(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function in all idle worker processes, without waiting for results; ignore exceptions."""
        with contextlib.suppress(TerminatedWorkerError, BrokenProcessPool):
            executor = workers(self.processes)
            for _ in range(self.idle_workers):
                executor.submit(_call_with_local_tasks, function, args)

    def submit_fresh(self, function: Callable[..., Any], *args: Any) -> "Future[Any] | None":
        """Call a function in a new process and return a future for the result."""
        return FRESH.submit(function, *args)

    def stop_fresh(self) -> None:
        """Stop the running call of `submit_fresh`."""
        FRESH.stop()

    def submit(self, stack: TrialStack) -> None:
        """Submit a stack to a worker process, which writes its progress to a shared file."""
        if self._shares is None:
            handle, file = tempfile.mkstemp(prefix="gradprix-")
            os.close(handle)
            weakref.finalize(self, Path(file).unlink, missing_ok=True)
            self._shares = np.memmap(file, dtype=np.float64, mode="w+", shape=self.processes)
        slot = next(i for i in range(self.processes) if i not in self._slots.values())
        self._shares[slot] = 0
        task, mode, live = stack.group.payload
        curves = None if live is None else live / f"stack-{slot}.json"
        shares = Path(str(self._shares.filename))
        self._jobs[self._start(task, stack.trials, mode, shares, slot, curves)] = stack
        self._slots[stack] = slot

    def _start(self, *args: Any) -> "Future[StackResult]":
        """Submit a call of `_train_and_report`; replace worker processes that were killed while they were idle."""
        deaths = 0
        while True:
            try:
                self._executor = workers(self.workers)
                job: Future[StackResult] = self._executor.submit(_call_with_local_tasks, _train_and_report, args)
                return job
            except TerminatedWorkerError as error:
                deaths += 1
                if deaths == LOSSES:
                    raise WorkerError(KILLED) from error

    def completed(self, timeout: float) -> list[tuple[TrialStack, StackResult]]:
        """Return the stacks that have completed, with their results; wait up to `timeout` seconds for the first.

        If a worker process was killed, loky ends all others, so all running stacks are returned.
        """
        results: list[tuple[TrialStack, StackResult]] = []
        done = wait(self._jobs, timeout, FIRST_COMPLETED).done
        if any(isinstance(job.exception(), TerminatedWorkerError) for job in done):
            done = wait(self._jobs).done
        for job in done:
            stack, error = self._jobs.pop(job), job.exception()
            del self._slots[stack]
            if isinstance(error, TerminatedWorkerError):
                error = WorkerError(KILLED)
            elif isinstance(error, BrokenProcessPool | PicklingError):
                raise _serialization_error(error) from error
            elif error is not None and not isinstance(error, Exception):
                raise error
            results.append((stack, job.result() if error is None else error))
        for stack, slot in self._slots.items():
            stack.share = float(self._shares[slot])  # type: ignore[index]  # set once a stack has started
        return results

    def cancel(self, stacks: Sequence[TrialStack]) -> None:
        """Kill all worker processes if any of the stacks is running."""
        if any(stack in self._slots for stack in stacks):
            self._executor.shutdown(kill_workers=True)
            self._jobs.clear()
            self._slots.clear()


def _serialization_error(error: BrokenProcessPool | PicklingError) -> WorkerError:
    cause = str(error.__cause__ or error).strip().strip('"').strip().splitlines()[-1]
    return WorkerError(
        f"the task or an optimizer cannot be sent to another process: {cause}. A lock, an open file, or a DataLoader "
        "whose persistent workers run must be created within the functions of the task, such as data."
    )


def _call_with_local_tasks(function: Callable[..., Any], args: Sequence[Any]) -> Any:
    """Call a function in a worker, with each task in `args` replaced by the worker's cached copy."""
    return call_with_picklable_errors(function, [cache_problem(arg) if isinstance(arg, Task) else arg for arg in args])


def _train_and_report(
    task: Task, trials: list[Trial], mode: ExecutionMode, file: Path, slot: int, live: Path | None
) -> list[Outcome]:
    """Train the trials of a stack and write the completed fraction to a file.

    Args:
        task: the task or training loop.
        trials: the trials.
        mode: the execution mode of the race.
        file: file with one float64 number per worker process.
        slot: index of the number to write.
        live: file for the learning curves of running trials; None writes none.
    """
    shares = np.memmap(file, dtype=np.float64, mode="r+")

    def report(share: float) -> None:
        shares[slot] = share

    return train(task, trials, mode, report, live)
