"""Where lanes run: this process, or several on this machine."""

import contextlib
import math
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Protocol

import joblib
import numpy as np
import torch
from joblib.externals.loky import get_reusable_executor, process_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from gradprix.tasks import Task
from gradprix.tasks._loop import Loop, Problem, home

from ._lane import NARROWEST, STACKED, run_lane
from ._loop import run_loop
from ._network import Form
from ._trial import Outcome, Trial
from ._trial import form as form_of
from ._width import Shape, shape

Watch = Callable[[float], None]
Finished = tuple[list[Trial], list[Outcome]]
DEATHS = 3
"""How many worker processes may be lost before a race is given up."""
KILLED = (
    "worker processes were killed again and again, probably because memory ran out. What is finished is kept; "
    "the same command goes on from there. Give it less with --memory, in GB."
)


class WorkerError(RuntimeError):
    """Worker processes were killed, again and again."""


class Engine(Protocol):
    """Runs lanes, and yields each when it is finished, in any order."""

    def run(
        self, task: Problem, trials: Sequence[Trial], watch: Watch = lambda done: None, how: Form = STACKED
    ) -> Iterator[Finished]:
        """Run the trials in a form; `watch` hears how many trials' worth of work is done."""
        ...

    def ask(self, function: Callable[..., Any], *args: Any) -> Any:
        """What a function answers where lanes run, whose arithmetic rounds as theirs does."""
        ...


class Local:
    """Lanes in processes of this machine, each on one thread.

    Args:
        processes: how many at most; as many as the machine has cores when None.
        memory: how much the race may take, in GB; half of what is free when None.
    """

    def __init__(self, processes: int | None = None, memory: float | None = None) -> None:
        if processes is not None and processes < 1:
            raise ValueError(f"processes = {processes}: it must be 1 or more.")
        if memory is not None and not memory > 0:
            raise ValueError(f"memory = {memory}: it must be more than 0 (GB).")
        self.processes = processes or joblib.cpu_count()
        self.bytes = None if memory is None else memory * 1e9
        # By task and batch size: a larger batch leaves room for fewer networks.
        self.shapes: dict[tuple[str, int], Shape] = {}

    def ask(self, function: Callable[..., Any], *args: Any) -> Any:
        """What a function answers in a worker process."""
        return self.everywhere(1, function, *args)[0]

    def everywhere(self, processes: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What a function answers in so many worker processes at once."""
        for death in count(1):
            try:
                workers = _workers(self.processes)
                jobs = [workers.submit(_at_home, function, args) for _ in range(processes)]
                return [job.result() for job in jobs]
            except TerminatedWorkerError as error:
                if death == DEATHS:
                    raise WorkerError(KILLED) from error
            except BrokenProcessPool as error:
                why = str(error.__cause__ or error).strip().splitlines()[-1]
                raise WorkerError(f"the task or an optimizer cannot be sent to another process: {why}") from error
        return []

    def run(
        self, task: Problem, trials: Sequence[Trial], watch: Watch = lambda done: None, how: Form = STACKED
    ) -> Iterator[Finished]:
        """Run the trials, in lanes of like ones."""
        about = task.fingerprint  # found out here, once, and sent along
        shapes: dict[int, Shape] = {}
        for size in dict.fromkeys(trial.batch_size for trial in trials):
            if (about, size) not in self.shapes:
                alike = [trial for trial in trials if trial.batch_size == size]
                self.shapes[about, size] = (
                    Shape(1, self.processes)
                    if isinstance(task, Loop)
                    else shape(task, alike, how, self.processes, self.bytes, self.everywhere)
                )
            shapes[size] = self.shapes[about, size]
        lanes, done = divide(trials, shapes), 0.0
        processes = min(each.processes for each in shapes.values())
        for death in count(1):
            left = dict(enumerate(lanes))
            try:
                for number, outcomes in _in_processes(task, lanes, processes, partial(_further, watch, done), how):
                    yield left.pop(number), outcomes
                return
            except TerminatedWorkerError as error:
                if death == DEATHS:
                    raise WorkerError(KILLED) from error
            # It may have been too large. Where a trial is trained changes no number of it.
            done += sum(len(lane) for number, lane in enumerate(lanes) if number not in left)
            lanes = [part for lane in left.values() for part in _halves(lane)]


def _workers(processes: int) -> Any:
    """Processes that are kept for the next lanes."""
    fast = "AVX2,STRICT" if torch.backends.cpu.get_cpu_capability().startswith("AVX") else "COMPATIBLE"
    env = {
        # Products of matrices must round alike wherever in memory their rows begin. MKL does so when it is told to, as
        # it is loaded.
        "MKL_CBWR": os.environ.get("MKL_CBWR", fast),
        # Memory of large tensors stays with the process: given back after each operation and taken anew, the system
        # clears every page of it, which takes longer than many operations (glibc; unknown names are ignored).
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**40),
        "MALLOC_TOP_PAD_": str(2**26),
        # Where modules are found, too: another environment means other processes, so that what is new is found.
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    with _deaf():
        made = get_reusable_executor(processes, timeout=60, env=env, initializer=_get_ready, initargs=(os.getpid(),))
        made.submit(int)  # it starts them
    return made


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes that start meanwhile never hear Ctrl-C: it is for this one, which ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _get_ready(parent: int) -> None:
    """Import, in all workers at once, what the first job would; that pickle asks for this function has done it.

    Args:
        parent: the process without which there is nothing to work for.
    """

    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    process_executor._MAX_MEMORY_LEAK_SIZE = math.inf  # memory that a worker keeps is meant, and is no leak


def divide(trials: Sequence[Trial], shapes: Mapping[int, Shape]) -> list[list[Trial]]:
    """Lanes of trials that can be stacked, as many for each process, those of one rule together."""
    kinds: dict[tuple[object, ...], list[Trial]] = {}
    for trial in trials:
        kinds.setdefault((trial.batch_size, trial.epochs, trial.schedule, trial.judged), []).append(trial)
    lanes = []
    for alike in kinds.values():
        alike.sort(key=form_of)
        shape = shapes[alike[0].batch_size]
        wanted = shape.processes * math.ceil(len(alike) / (shape.processes * shape.width))
        number = max(1, min(wanted, len(alike) // min(NARROWEST, shape.width)))
        edges = [len(alike) * i // number for i in range(number + 1)]
        lanes += [alike[a:b] for a, b in pairwise(edges)]
    return lanes


def _further(watch: Watch, before: float, done: float) -> None:
    """Say how far it is from what was done before."""
    watch(before + done)


def _halves(lane: list[Trial]) -> list[list[Trial]]:
    middle = len(lane) // 2
    return [lane[:middle], lane[middle:]] if middle >= NARROWEST else [lane]


def _in_processes(
    task: Problem, lanes: Sequence[list[Trial]], processes: int, watch: Watch, how: Form
) -> Iterator[tuple[int, list[Outcome]]]:
    """The number and outcomes of each lane as it is finished."""
    with tempfile.TemporaryDirectory(prefix="gradprix-") as folder:
        file = Path(folder) / "shares"
        shares = np.memmap(file, dtype=np.float64, mode="w+", shape=len(lanes))
        sizes = np.array([len(lane) for lane in lanes])
        workers = _workers(processes)
        given = [(task, lane, file, number, how) for number, lane in enumerate(lanes)]
        jobs = [workers.submit(_at_home, _work, lane) for lane in given]
        try:
            with _every(0.2, lambda: watch(float(shares @ sizes))):
                for job in as_completed(jobs):
                    yield job.result()
        except BaseException:
            workers.shutdown(kill_workers=True)  # nobody wants what they are at any more
            raise


def _at_home(function: Callable[..., Any], args: Sequence[Any]) -> Any:
    """What a function answers in a worker, given the worker's own copy of a task."""
    return function(*(home(arg) if isinstance(arg, Task) else arg for arg in args))


def _work(task: Problem, lane: list[Trial], file: Path, number: int, how: Form) -> tuple[int, list[Outcome]]:
    """Run a lane, and say how far it is in a file."""
    shares = np.memmap(file, dtype=np.float64, mode="r+")

    def report(share: float) -> None:
        shares[number] = share

    if isinstance(task, Loop):
        return number, [run_loop(task, trial) for trial in lane]
    return number, run_lane(task, lane, report, how)


@contextlib.contextmanager
def _every(seconds: float, look: Callable[[], None]) -> Iterator[None]:
    """Call `look` again and again while the body runs."""
    stop = threading.Event()

    def loop() -> None:
        while not stop.wait(seconds):
            look()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
