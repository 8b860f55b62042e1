"""Common base of all executors: submits stacks of trials, retries failed stacks, and yields outcomes."""

import pickle
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gradprix.tasks import Task
from gradprix.tasks.loop import Loop, Problem
from gradprix.tasks.schedules import count_steps
from gradprix.tasks.task import TaskError, first_line
from gradprix.training import STACKED, StackLayout, train_stack
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.loop_runner import run_loop
from gradprix.training.provenance import provenance
from gradprix.training.trial import FailureKind, Outcome, Trial
from gradprix.utils.devices import describe_device
from gradprix.utils.wording import format_choice

from .scheduler import Scheduler, TrialGroup, TrialStack

Watch = Callable[[float], None]
"""Callback that receives the progress of a training or a race."""
Finished = tuple[list[Trial], list[Outcome]]
"""Trials of a completed stack, with one outcome per trial."""
StackResult = list[Outcome] | Exception
"""One outcome per trial of a stack, or the exception that ended its training."""
MAX_FAILED_FIRST = 3
"""Number of failed trials after which a race is given up, if none has succeeded and every entry has a failed trial."""
REPORT_INTERVAL = 0.2
"""Maximum number of seconds to wait for results before progress is reported."""


class WorkerError(RuntimeError):
    """Error raised if worker processes were killed repeatedly, or if there are no workers."""


@runtime_checkable
class ExecutablePlan(Protocol):
    """The part of a race's plan that determines where its trials can be trained."""

    @property
    def task(self) -> Problem:
        """The problem, with the resources that it needs."""

    @property
    def entries(self) -> tuple[Any, ...]:
        """The optimizers, whose code must be available where models are trained."""

    @property
    def device(self) -> str:
        """The device that the user asked for."""


class Executor(ABC):
    """Executor that trains models and yields outcomes in the order of completion.

    Races that run concurrently on one executor (see `map_concurrently`) share its scheduler.
    """

    workers_die_together = False
    """True if the death of one worker ends all other workers."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        # Stack layouts by task, execution mode and batch size; with larger batches, fewer models fit into memory.
        self.layouts: dict[tuple[str, ExecutionMode, int], StackLayout] = {}
        # Entries and execution mode of the plans that have passed preflight, by kind of plan.
        self.checked: dict[tuple[Any, ...], tuple[tuple[Any, ...], ExecutionMode]] = {}
        self._results: defaultdict[TrialGroup, list[tuple[TrialStack, StackResult]]] = defaultdict(list)
        self._lock = threading.RLock()
        self._results_changed = threading.Condition(self._lock)
        self._dispatch_lock = threading.Lock()

    @property
    @abstractmethod
    def workers(self) -> int:
        """The number of stacks that can run at the same time."""

    @property
    def memory(self) -> float | None:
        """The memory limit of a race on one machine, in bytes; None for half of the free memory."""
        return None

    @property
    def place(self) -> str:
        """A description of the place of execution, to be shown to the user."""
        return "this machine"

    @property
    def state(self) -> str:
        """A description of the current state, to be shown to the user; it may be empty."""
        return ""

    @property
    def running_entries(self) -> tuple[str, ...]:
        """The names of the entries that are being trained, each once."""
        with self._lock:
            trials = [trial for stack in self.scheduler.running for trial in stack.trials]
        return tuple(dict.fromkeys(trial.entry_name for trial in trials))

    @abstractmethod
    def choose_layout(self, task: Task, trials: Sequence[Trial], mode: ExecutionMode) -> StackLayout:
        """Choose the stack size and the number of workers for trials of a task that have the same batch size."""

    @abstractmethod
    def call_workers(self, count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Call a function in `count` workers at the same time and return the results."""

    @abstractmethod
    def submit(self, stack: TrialStack) -> None:
        """Submit a stack to a worker."""

    @abstractmethod
    def completed(self, timeout: float) -> list[tuple[TrialStack, StackResult]]:
        """Return the stacks that have completed, with their results; wait up to `timeout` seconds for the first."""

    @abstractmethod
    def cancel(self, stacks: Sequence[TrialStack]) -> None:
        """Cancel running stacks."""

    def describe_provenance(self, plan: ExecutablePlan, device: str) -> str:
        """Return the provenance of results of this executor: library versions, and the type of processor or device."""
        return provenance("" if device == "cpu" else self.call(describe_device, device))

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in one worker and return the result; its arithmetic is rounded as in training."""
        return self.call_workers(1, function, *args)[0]

    @property
    def idle_workers(self) -> int:
        """The number of workers that remain idle while one worker runs a call; 0 if it is unknown before a race."""
        return 0

    def warm_up(self, function: Callable[..., Any], *args: Any) -> None:  # noqa: B027  # optional
        """Call a function in all idle workers to fill their caches, and ignore exceptions. Does nothing by default."""

    def submit_fresh(self, function: Callable[..., Any], *args: Any) -> "Future[Any] | None":
        """Call a function in a new process and return a future for the result.

        Returns None if the executor cannot start new processes, which is the default.
        """
        return None

    def stop_fresh(self) -> None:  # noqa: B027  # nothing to stop by default
        """Stop the running call of `submit_fresh`."""

    def map_concurrently(self, function: Callable[[Any], Any], plans: Sequence[Any]) -> list[Any]:
        """Call a function that runs a race on each plan and return the results; by default one after the other."""
        return [function(plan) for plan in plans]

    def run(
        self,
        task: Problem,
        trials: Sequence[Trial],
        watch: Watch = lambda done: None,
        mode: ExecutionMode = STACKED,
        later_phases: int = 0,
        has_succeeded: bool = False,
        live: Path | None = None,
    ) -> Iterator[Finished]:
        """Train trials, in stacks where possible.

        Stacks that fail are retried in halves. A single trial that still fails after retries yields an outcome with its
        error, and training of all other trials continues.

        Args:
            task: the problem.
            trials: the trials to train.
            watch: callback that receives the number of completed trials; partly completed trials count as fractions.
            mode: the execution mode of the race.
            later_phases: number of times that the race will request further trials after these.
            has_succeeded: True if an earlier trial of the race was successful.
            live: folder on this machine to which the learning curves of running trials are written; None writes none.

        Yields:
            Trials of a completed stack and their outcomes.

        Raises:
            TaskError: if the task's own code fails on a model that has not diverged, or if a few trials of every
                optimizer have failed and none has succeeded.
            WorkerError: if no trial has succeeded, and failing trials have repeatedly killed their workers.
            EngineError: if a machine of a cluster cannot take part.
        """
        groups, done = self._group_trials(task, trials, later_phases, (task, mode, live)), 0
        failures: list[tuple[TrialStack, Exception]] = []
        with self._lock:
            self.scheduler.groups += groups
        try:
            while done < len(trials):
                if self._dispatch_lock.acquire(blocking=False):
                    try:
                        self._dispatch()
                    finally:
                        self._dispatch_lock.release()
                else:  # another race's thread dispatches
                    with self._results_changed:
                        self._results_changed.wait(REPORT_INTERVAL)
                with self._lock:
                    results = [pair for group in groups for pair in self._results.pop(group, ())]
                    shares = [len(p.trials) * p.share for p in self.scheduler.running if p.group in groups]
                watch(done + sum(len(stack.trials) for stack, _ in results) + sum(shares))
                for stack, outcomes in results:
                    done += len(stack.trials)
                    if isinstance(outcomes, TaskError) and isinstance(task, Task):
                        raise outcomes  # an error in the task's code would affect its entries unequally
                    if isinstance(outcomes, Exception):
                        failures.append((stack, outcomes))
                        continue
                    has_succeeded = True
                    yield stack.trials, outcomes
                if failures and not has_succeeded and _should_give_up(trials, failures, done):
                    raise _total_failure(task, *failures[0])
            for stack, error in failures:
                kind = FailureKind.WORKER_LOST if isinstance(error, WorkerError) else FailureKind.EXCEPTION
                message = _format_error(error)
                yield stack.trials, [Outcome.from_error(t, task.baseline, message, kind) for t in stack.trials]
        finally:
            with self._lock:
                self.cancel([stack for group in groups for stack in self.scheduler.drop(group)])

    def _group_trials(
        self,
        task: Problem,
        trials: Sequence[Trial],
        later_phases: int,
        payload: tuple[Problem, ExecutionMode, Path | None],
    ) -> list[TrialGroup]:
        """Group the trials that can share a stack. In each group, trials that run the same update code are adjacent."""
        fingerprint, mode = task.fingerprint, payload[1]  # computed once here and sent along
        count = len(task.loaded.split(0).train) if isinstance(task, Task) else 1
        alike: dict[tuple[Any, ...], list[Trial]] = {}
        for trial in trials:
            alike.setdefault(trial.stack_key, []).append(trial)
        groups = []
        for (size, epochs, *_), members in alike.items():
            kind = fingerprint, mode, size
            if kind not in self.layouts:
                if isinstance(task, Loop):
                    self.layouts[kind] = StackLayout(1, self.workers)
                else:
                    same_size = [trial for trial in trials if trial.batch_size == size]
                    self.layouts[kind] = self.choose_layout(task, same_size, mode)
            groups.append(
                TrialGroup(
                    sorted(members, key=attrgetter("update_key")),
                    kind,
                    count_steps(count, size, epochs),
                    self.layouts[kind].width,
                    later_phases,
                    payload,
                )
            )
        return groups

    def _dispatch(self) -> None:
        """Submit stacks to free workers and collect the results, for all races that share this executor."""
        with self._lock:
            self.scheduler.workers = self.workers
            while (stack := self.scheduler.next()) is not None:
                stack.started = time.perf_counter()
                self.submit(stack)
        completed = self.completed(REPORT_INTERVAL)
        killed = [stack for stack, result in completed if isinstance(result, WorkerError)]
        not_blamed = killed if self.workers_die_together and len(killed) > 1 else []
        with self._results_changed:
            for stack, result in completed:
                if stack not in self.scheduler.running:
                    continue  # its race has ended
                if isinstance(result, list):
                    self.scheduler.finished(stack, time.perf_counter() - stack.started)
                elif not self.scheduler.failed(stack, blamed=stack not in not_blamed):
                    continue
                self._results[stack.group].append((stack, result))
            self._results_changed.notify_all()


def _should_give_up(trials: Sequence[Trial], failures: Sequence[tuple[TrialStack, Exception]], done: int) -> bool:
    """Return True if a race without a successful trial should be given up, given its failures so far."""
    # A trial that kills its worker is retried alone, after all other trials.
    if done == len(trials) or isinstance(failures[0][1], WorkerError):
        return True
    failed = {trial.entry_name for stack, _ in failures for trial in stack.trials}
    return len(failures) >= MAX_FAILED_FIRST and failed == {trial.entry_name for trial in trials}


def _format_error(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _total_failure(task: Problem, stack: TrialStack, error: Exception) -> Exception:
    """Return the exception to raise if no trial can be trained.

    Args:
        task: the problem.
        stack: the first stack that failed.
        error: its error. Those of a task's own code are instances of `TaskError`, so others may be an optimizer's.
    """
    if isinstance(error, TaskError | WorkerError):
        return error
    names = format_choice(list(dict.fromkeys(trial.entry_name for trial in stack.trials)))
    failure = TaskError(f"task {task.name!r} cannot be raced: training with {names} fails: {_format_error(error)}.")
    failure.__cause__ = error
    return failure


def call_with_picklable_errors(function: Callable[..., Any], args: Sequence[Any]) -> Any:
    """Call a function; if it raises an exception that cannot be pickled, raise a `RuntimeError` with its message."""
    try:
        return function(*args)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise RuntimeError(_format_error(error)) from None
        raise


def train(
    task: Problem, trials: list[Trial], mode: ExecutionMode, report: Watch, live: Path | None = None
) -> list[Outcome]:
    """Train the trials of one stack in a worker and return their outcomes.

    Args:
        task: the task or training loop; trials of a training loop are trained one after the other.
        trials: the trials.
        mode: the execution mode of the race.
        report: callback that receives the completed fraction of the training.
        live: file for the learning curves of running trials; None writes none.
    """
    if isinstance(task, Loop):
        return [run_loop(task, trial) for trial in trials]
    return train_stack(task, trials, report, mode, live)
