"""Where lanes run: this process, or several on this machine."""

import contextlib
import math
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import joblib
import numpy as np

from gradprix.tasks import Task

from ._lane import STACKED, run_lane
from ._network import Form
from ._trial import Outcome, Trial, form as form_of

WIDEST = 64
"""Networks in one lane: beyond this the machine's caches gain nothing and memory grows."""

Finished = tuple[list[Trial], list[Outcome]]


class Engine(Protocol):
    """Runs lanes, and yields each when it is finished, in any order."""

    def run(
        self, task: Task, trials: Sequence[Trial], watch: Callable[[float], None], form: Form = STACKED
    ) -> Iterator[Finished]:
        """Run the trials; `watch` hears how many trials' worth of work is done."""
        ...


class Local:
    """Lanes in processes of this machine, each on one thread.

    Args:
        processes: how many; as many as the machine has cores when None. One means this process itself.
    """

    def __init__(self, processes: int | None = None) -> None:
        if processes is not None and processes < 1:
            raise ValueError(f"processes = {processes}: it must be 1 or more.")
        self.processes = processes or joblib.cpu_count()

    def run(
        self, task: Task, trials: Sequence[Trial], watch: Callable[[float], None], form: Form = STACKED
    ) -> Iterator[Finished]:
        """Run the trials, in lanes of like ones."""
        lanes = divide(trials, self.processes)
        if self.processes == 1 or len(lanes) == 1:
            done = 0.0
            for lane in lanes:
                yield lane, run_lane(task, lane, lambda share: watch(done + share * len(lane)), form)  # noqa: B023
                done += len(lane)
            return
        with tempfile.TemporaryDirectory(prefix="gradprix-") as folder:
            file = Path(folder) / "shares"
            shares = np.memmap(file, dtype=np.float64, mode="w+", shape=len(lanes))
            sizes = np.array([len(lane) for lane in lanes])
            jobs = (joblib.delayed(_work)(task, lane, file, number, form) for number, lane in enumerate(lanes))
            pool = joblib.Parallel(self.processes, return_as="generator_unordered")
            with _every(0.2, lambda: watch(float(shares @ sizes))):
                for number, outcomes in pool(jobs):
                    yield lanes[number], outcomes


def divide(trials: Sequence[Trial], processes: int) -> list[list[Trial]]:
    """Lanes of trials that can be stacked, as many for each process, those of one rule together."""
    kinds: dict[tuple[object, ...], list[Trial]] = {}
    for trial in trials:
        kinds.setdefault((trial.batch_size, trial.epochs, trial.schedule, trial.judged), []).append(trial)
    lanes = []
    for alike in kinds.values():
        alike.sort(key=form_of)
        wanted = processes * math.ceil(len(alike) / (processes * WIDEST))
        count = max(1, min(wanted, len(alike) // 2))
        edges = [len(alike) * i // count for i in range(count + 1)]
        lanes += [alike[a:b] for a, b in pairwise(edges)]
    return lanes


_TASK: dict[Path, Task] = {}


def _work(task: Task, lane: list[Trial], file: Path, number: int, form: Form) -> tuple[int, list[Outcome]]:
    """What a worker does. It keeps the examples from lane to lane of a run, and says how far it is in a shared file."""
    if file not in _TASK:
        _TASK.clear()
        _TASK[file] = task
    shares = np.memmap(file, dtype=np.float64, mode="r+")

    def report(share: float) -> None:
        shares[number] = share

    return number, run_lane(_TASK[file], lane, report, form)


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
