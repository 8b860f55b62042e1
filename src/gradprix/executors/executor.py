"""Where lanes run: what all engines have in common."""

import pickle
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, runtime_checkable

from gradprix.tasks import Task
from gradprix.tasks.loop import Loop, Problem
from gradprix.tasks.schedules import count_steps
from gradprix.tasks.task import TaskError, first_line
from gradprix.training.autotune import Shape
from gradprix.training.loop_runner import run_loop
from gradprix.training.model_stack import Form
from gradprix.training.provenance import provenance
from gradprix.training.trainer import STACKED, run_lane
from gradprix.training.trial import Outcome, Trial
from gradprix.training.trial import form as form_of
from gradprix.utils.devices import describe_device

from .scheduler import Part, Schedule, Work

Watch = Callable[[float], None]
Finished = tuple[list[Trial], list[Outcome]]
Found = list[Outcome] | Exception
FEW = 3
"""Trials that fail before any has succeeded, after which a race is given up, if some of every optimizer are among them.
"""
PATIENCE = 0.2
"""Seconds to wait for something to end, before a user hears how far it is."""


class WorkerError(RuntimeError):
    """Worker processes were killed, again and again, or there are none."""


@runtime_checkable
class RacePlan(Protocol):
    """The part of a race's plan that decides where it can be trained."""

    @property
    def task(self) -> Problem:
        """The problem, with what it needs of a machine."""

    @property
    def entries(self) -> tuple[Any, ...]:
        """The optimizers, whose code has to be where models are trained."""

    @property
    def device(self) -> str:
        """The device that the user asked for."""


class Engine(ABC):
    """Trains networks, and yields what came of them when it is finished, in any order.

    What is wanted of it goes into one schedule; several races may share one where `side_by_side` says so.
    """

    together = False
    """Whether workers that run beside one that dies die with it."""

    def __init__(self) -> None:
        self.schedule = Schedule()
        # By task, form and batch size: a larger batch leaves room for fewer networks.
        self.shapes: dict[tuple[str, Form, int], Shape] = {}
        # Of each kind of plan that was checked, for which entries, and how its models are trained.
        self.checked: dict[tuple[Any, ...], tuple[tuple[Any, ...], Form]] = {}
        self._found: defaultdict[Work, list[tuple[Part, Found]]] = defaultdict(list)
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._turning = threading.Lock()

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many lanes can run at once."""

    @property
    def memory(self) -> float | None:
        """How many bytes a race may take on a machine; None for half of what is free."""
        return None

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return "this machine"

    @property
    def state(self) -> str:
        """What a user should hear of it while it works."""
        return ""

    @abstractmethod
    def shape(self, task: Task, trials: Sequence[Trial], how: Form) -> Shape:
        """How networks of a task, of one batch size, are best laid over workers."""

    @abstractmethod
    def everywhere(self, count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What a function answers in so many workers at once."""

    @abstractmethod
    def start(self, part: Part) -> None:
        """Have a worker train a part."""

    @abstractmethod
    def ended(self, seconds: float) -> list[tuple[Part, Found]]:
        """What has ended, and how; waits so long for something to."""

    @abstractmethod
    def stop(self, parts: Sequence[Part]) -> None:
        """End what is under way."""

    def made(self, plan: RacePlan, device: str) -> str:
        """What numbers depend on besides their plan, where lanes run."""
        return provenance("" if device == "cpu" else self.ask(describe_device, device))

    def ask(self, function: Callable[..., Any], *args: Any) -> Any:
        """What a function answers where lanes run, whose arithmetic rounds as theirs does."""
        return self.everywhere(1, function, *args)[0]

    def submit_fresh(self, function: Callable[..., Any], *args: Any) -> "Future[Any] | None":
        """Call a function in a process in which nothing has run before; None where that cannot be had."""
        return None

    def stop_fresh(self) -> None:  # noqa: B027  # there is nothing to stop
        """End what `submit_fresh` began."""

    def side_by_side(self, do: Callable[[Any], Any], each: Sequence[Any]) -> list[Any]:
        """What a function that runs a race makes of each plan; here, one after the other."""
        return [do(one) for one in each]

    def run(
        self,
        task: Problem,
        trials: Sequence[Trial],
        watch: Watch = lambda done: None,
        how: Form = STACKED,
        later: int = 0,
        good: bool = False,
    ) -> Iterator[Finished]:
        """Train trials, together with like ones.

        A trial that fails by itself whatever is tried comes out with its error, and the others go on.

        Args:
            task: the problem.
            trials: what to train.
            watch: hears how many trials' worth of work is done.
            how: the form of the race.
            later: how many times more the race will want trials after these.
            good: whether the race has succeeded with others before.

        Raises:
            TaskError: when the task's own code fails on a network that has not diverged, and when a few trials of every
                optimizer have failed and none has succeeded.
            WorkerError: likewise, when the workers died of it.
            EngineError: when a machine of a cluster must not take part.
        """
        works, done = self._works(task, trials, how, later), 0
        bad: list[tuple[Part, Exception]] = []
        with self._lock:
            self.schedule.works += works
        try:
            while done < len(trials):
                if self._turning.acquire(blocking=False):
                    try:
                        self._turn()
                    finally:
                        self._turning.release()
                else:  # another race looks after all
                    with self._news:
                        self._news.wait(PATIENCE)
                with self._lock:
                    found = [pair for work in works for pair in self._found.pop(work, ())]
                    shares = [len(p.trials) * p.share for p in self.schedule.running if p.work in works]
                watch(done + sum(shares))
                for part, outcomes in found:
                    done += len(part.trials)
                    if isinstance(outcomes, TaskError) and isinstance(task, Task):
                        raise outcomes  # its own code failed, so that no number of it would be fair
                    if isinstance(outcomes, Exception):
                        bad.append((part, outcomes))
                        continue
                    good = True
                    yield part.trials, outcomes
                if bad and not good and _hopeless(trials, bad, done):
                    raise _altogether(task, bad[0][1])
            for part, error in bad:
                yield part.trials, [Outcome.from_error(trial, task.baseline, _said(error)) for trial in part.trials]
        finally:
            with self._lock:
                self.stop([part for work in works for part in self.schedule.drop(work)])

    def _works(self, task: Problem, trials: Sequence[Trial], how: Form, later: int) -> list[Work]:
        """The trials, those that can be stacked together, those of one rule side by side."""
        about = task.fingerprint  # found out here, once, and sent along
        count = len(task.loaded.split(0).train) if isinstance(task, Task) else 1
        kinds: dict[tuple[Any, ...], list[Trial]] = {}
        for trial in trials:
            kinds.setdefault((trial.batch_size, trial.epochs, trial.schedule, trial.judged), []).append(trial)
        works = []
        for (size, epochs, *_), alike in kinds.items():
            kind = about, how, size
            if kind not in self.shapes:
                wanted = [trial for trial in trials if trial.batch_size == size]
                self.shapes[kind] = Shape(1, self.workers) if isinstance(task, Loop) else self.shape(task, wanted, how)
            works.append(
                Work(
                    sorted(alike, key=form_of),
                    kind,
                    count_steps(count, size, epochs),
                    self.shapes[kind].width,
                    later,
                    (task, how),
                )
            )
        return works

    def _turn(self) -> None:
        """Give workers that are free something to do, and learn what has ended: for whom it may be."""
        with self._lock:
            self.schedule.workers = self.workers
            while (part := self.schedule.next()) is not None:
                part.started = time.perf_counter()
                self.start(part)
        ended = self.ended(PATIENCE)
        died = [part for part, found in ended if isinstance(found, WorkerError)]
        blameless = died if self.together and len(died) > 1 else []
        with self._news:
            for part, found in ended:
                if part not in self.schedule.running:
                    continue  # nobody wants it any more
                if isinstance(found, list):
                    self.schedule.finished(part, time.perf_counter() - part.started)
                elif not self.schedule.failed(part, blamed=part not in blameless):
                    continue
                self._found[part.work].append((part, found))
            self._news.notify_all()


def _hopeless(trials: Sequence[Trial], bad: Sequence[tuple[Part, Exception]], done: int) -> bool:
    """Whether what has failed so far, when nothing has succeeded, is enough to say that nothing will."""
    if done == len(trials) or isinstance(bad[0][1], WorkerError):  # it was tried by itself, after all others
        return True
    failed = {trial.rule.name for part, _ in bad for trial in part.trials}
    return len(bad) >= FEW and failed == {trial.rule.name for trial in trials}


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _altogether(task: Problem, error: Exception) -> Exception:
    """What to say when nothing can be trained."""
    if isinstance(error, TaskError | WorkerError):
        return error
    made = TaskError(f"task {task.name!r} cannot be raced: {_said(error)}.")
    made.__cause__ = error
    return made


def answered(function: Callable[..., Any], args: Sequence[Any]) -> Any:
    """What a function answers in a worker; what it raises as it is, or in words where it cannot be sent."""
    try:
        return function(*args)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise RuntimeError(_said(error)) from None
        raise


def train(task: Problem, trials: list[Trial], how: Form, report: Watch) -> list[Outcome]:
    """Train trials in a worker, and say what came of each."""
    if isinstance(task, Loop):
        return [run_loop(task, trial) for trial in trials]
    return run_lane(task, trials, report, how)
