"""Scheduler that all executors share: chooses the trials that are trained together next.

A stack is formed when a worker becomes free for it: as large as pays while there is work for all workers, smaller
towards the end, so that all workers finish together (guided self-scheduling, Polychronopoulos & Kuck 1987,
doi:10.1109/TC.1987.5009495). Work with the longest remaining race goes first. The place of a trial and the other trials
in its stack change none of its numbers, so scheduling may depend on measured times. `benchmarks/scale.py` simulates it
with a thousand workers.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from gradprix.training import MIN_STACK

OVERHEAD = 1
"""Overhead of a stack's step, in steps of one of its models, whatever the stack size: in the median of the built-in
tasks little more than the spare row (benchmarks/scale.json)."""
AMONG_OTHERS = 0.5
"""Share of a worker's equal part of all remaining work that it gets at once: estimates are wrong, stacks fail, and a
race's next request waits for its last stack (factoring, Hummel, Schonberg & Flynn 1992, doi:10.1145/135226.135232)."""
LOSSES = 3
"""Number of times a trial may be lost alone before the race continues without it."""


@dataclass(eq=False)
class Work:
    """Trials requested by a race, any of which can be stacked together.

    Args:
        trials: the trials, sorted so that those best stacked together are adjacent.
        kind: stacks of one kind have equal cost.
        steps: training steps of each trial.
        width: maximum number of trials in a stack.
        later: number of times that the race will request trials after these.
        about: data that the executor needs to train them.
    """

    trials: list[Any]
    kind: Hashable
    steps: float
    width: int
    later: int = 0
    about: Any = None
    again: list["Part"] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """The number of trials that are not running."""
        return len(self.trials) + sum(len(part.trials) for part in self.again)


@dataclass(eq=False)
class Part:
    """Trials of a work that are trained together.

    Args:
        work: the work that they belong to.
        trials: the trials.
        losses: number of times that exactly these trials were lost.
        share: completed share of the training.
        started: start time on the executor's clock.
        suspect: True if it must run alone, to find out if it kills other workers.
    """

    work: Work
    trials: list[Any]
    losses: int = 0
    share: float = 0.0
    started: float = 0.0
    suspect: bool = False


class Schedule:
    """All requested trials that are not finished.

    Args:
        workers: maximum number of parts that run at the same time.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self.works: list[Work] = []
        self.running: list[Part] = []
        self.suspects: list[Part] = []
        self.lost = 0
        self._seconds: dict[Hashable, float] = {}  # seconds of one model's step, by kind
        self._median_seconds = 1.0

    def next(self) -> Part | None:
        """Return the next part for a worker; None if nothing waits or no worker is free."""
        waiting = [work for work in self.works if work.waiting]
        if any(part.suspect for part in self.running) or len(self.running) >= self.workers:
            return None
        if waiting:
            work = max(waiting, key=self._urgency)
            part = work.again.pop() if work.again else Part(work, self._take_trials(work))
        elif self.suspects and not self.running:
            part = self.suspects.pop()
        else:
            return None
        self.running.append(part)
        return part

    def finished(self, part: Part, seconds: float) -> None:
        """Record that a part has finished, and its duration."""
        self.running.remove(part)
        seconds_per_step = seconds / (part.work.steps * (OVERHEAD + len(part.trials)))
        self._seconds[part.work.kind] = (self._seconds.get(part.work.kind, seconds_per_step) + seconds_per_step) / 2
        self._median_seconds = median(self._seconds.values())

    def failed(self, part: Part, blamed: bool = True) -> bool:
        """Record that a part failed or was lost; return True if the race must continue without its trials.

        The trials are retried in halves: the stack may have been too large, and a trial that kills its worker should
        affect no others.

        Args:
            part: the part.
            blamed: False if another part that ran at the same time may be the cause.
        """
        self.running.remove(part)
        self.lost += len(part.trials)
        middle = len(part.trials) // 2
        if middle:
            part.work.again += [Part(part.work, half) for half in (part.trials[middle:], part.trials[:middle])]
        elif part.losses + blamed < LOSSES:
            retry = Part(part.work, part.trials, part.losses + blamed, suspect=part.suspect or not blamed)
            (self.suspects if retry.suspect else part.work.again).append(retry)
        else:
            return True
        return False

    def drop(self, work: Work) -> list[Part]:
        """Remove a work and return its running parts."""
        dropped = [part for part in self.running if part.work is work]
        self.works.remove(work)
        self.suspects = [part for part in self.suspects if part.work is not work]
        self.running = [part for part in self.running if part.work is not work]
        return dropped

    def left(self, work: Work) -> int:
        """Return the number of unfinished trials of a work."""
        active = [part for part in (*self.running, *self.suspects) if part.work is work]
        return work.waiting + sum(len(part.trials) for part in active)

    def _take_trials(self, work: Work) -> list[Any]:
        """Take a worker's share of the remaining trials, divided into as many equal parts as the stack size requires.

        A race that runs alone gets an equal share per worker: no other race could use the time that a longer stack
        leaves.
        """
        own_seconds, all_seconds = (
            float(work.waiting),
            sum(self._trial_seconds(other) * other.waiting for other in self.works),
        )
        for part in self.running:
            remaining = len(part.trials) * (1 - part.share)
            all_seconds += self._trial_seconds(part.work) * remaining
            own_seconds += remaining * (part.work is work)
        share = max(own_seconds, AMONG_OTHERS * all_seconds / self._trial_seconds(work)) / self.workers
        parts = max(1, math.ceil(share / work.width - 1e-9))
        min_rows, count = min(MIN_STACK, work.width), len(work.trials)
        rows = min(max(math.ceil(share / parts - 1e-9), min_rows), work.width, count)
        if 0 < count - rows < min_rows:
            rows = count if count <= work.width else count - min_rows
        taken, work.trials = work.trials[:rows], work.trials[rows:]
        return taken

    def _urgency(self, work: Work) -> tuple[bool, float]:
        """Return the sort key of a work: unmeasured kinds, which may take longest, then the race's remaining time."""
        is_unmeasured = work.kind not in self._seconds and all(part.work.kind != work.kind for part in self.running)
        return is_unmeasured, self._trial_seconds(work) * (1 + work.later)

    def _trial_seconds(self, work: Work) -> float:
        """Estimate the seconds of one trial alone; unmeasured kinds get the median."""
        return work.steps * self._seconds.get(work.kind, self._median_seconds)
