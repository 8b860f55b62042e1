"""Which trials are trained together next: what every engine plans with.

A lane is cut when a worker is free for it, and not before: as wide as pays while there is work for everybody, narrower
towards the end, so that all workers end together (guided self-scheduling, Polychronopoulos & Kuck 1987,
doi:10.1109/TC.1987.5009495). What keeps its race going longest goes first. Where a trial is trained, and with which
others, changes no number of it, so all this may depend on how long things take.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ._lane import NARROWEST

OVERHEAD = 8
"""A step of a lane takes as long as the steps of so many of its networks more, whatever its width: about as much, in
the median of the built-in tasks (benchmarks/scale.json)."""
LOSSES = 3
"""How often a trial by itself may be lost before the race goes on without it."""


@dataclass(eq=False)
class Work:
    """Trials that a race wants next, of which any can go together.

    Args:
        trials: those that are best together side by side.
        kind: lanes of one kind cost alike.
        steps: of each trial.
        width: trials in a lane at most.
        later: how many times its race will want trials once it has these.
        about: what an engine needs to know of them.
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
        """Trials that are not under way."""
        return len(self.trials) + sum(len(part.trials) for part in self.again)


@dataclass(eq=False)
class Part:
    """Trials of some work that are trained together.

    Args:
        work: whose.
        trials: which.
        losses: how often these very trials were lost.
        share: how much of it is done.
        started: when it was, by the engine's clock.
    """

    work: Work
    trials: list[Any]
    losses: int = 0
    share: float = 0.0
    started: float = 0.0


class Schedule:
    """Everything that is wanted and not yet done.

    Args:
        workers: how many parts can be under way at once.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self.works: list[Work] = []
        self.running: list[Part] = []
        self.lost = 0
        self._seconds: dict[Hashable, float] = {}  # of a network's step, by kind

    def next(self) -> Part | None:
        """What a worker should do now; None when nothing waits, or no worker is free."""
        waiting = [work for work in self.works if work.waiting]
        if not waiting or len(self.running) >= self.workers:
            return None
        work = max(waiting, key=self._path)
        part = work.again.pop() if work.again else Part(work, self._cut(work))
        self.running.append(part)
        return part

    def finished(self, part: Part, seconds: float) -> None:
        """Learn that a part is done, and how long it took."""
        self.running.remove(part)
        took = seconds / (part.work.steps * (OVERHEAD + len(part.trials)))
        self._seconds[part.work.kind] = (self._seconds.get(part.work.kind, took) + took) / 2

    def failed(self, part: Part) -> bool:
        """Learn that a part failed, or that its worker is gone. True when the race must go on without its trials.

        They are tried again in halves: they may have been too many, and if one of them is to blame, it should take no
        other with it.
        """
        self.running.remove(part)
        self.lost += len(part.trials)
        middle = len(part.trials) // 2
        if middle:
            part.work.again += [Part(part.work, half) for half in (part.trials[middle:], part.trials[:middle])]
        elif part.losses + 1 < LOSSES:
            part.work.again.append(Part(part.work, part.trials, part.losses + 1))
        else:
            return True
        return False

    def drop(self, work: Work) -> list[Part]:
        """Forget some work; what of it is under way, which nobody wants any more."""
        dropped = [part for part in self.running if part.work is work]
        self.works.remove(work)
        self.running = [part for part in self.running if part.work is not work]
        return dropped

    def left(self, work: Work) -> int:
        """How many trials of it are not done."""
        return work.waiting + sum(len(part.trials) for part in self.running if part.work is work)

    def _cut(self, work: Work) -> list[Any]:
        """Trials for a worker: its even share of all there is left to do, in as many turns as the width asks for."""
        left = sum(self._each(other) * other.waiting for other in self.works)
        left += sum(self._each(part.work) * len(part.trials) * (1 - part.share) for part in self.running)
        even = left / self.workers / self._each(work)
        turns = max(1, math.ceil(even / work.width - 1e-9))
        least, count = min(NARROWEST, work.width), len(work.trials)
        rows = min(max(math.ceil(even / turns - 1e-9), least), work.width, count)
        if 0 < count - rows < least:
            rows = count if count <= work.width else count - least
        cut, work.trials = work.trials[:rows], work.trials[rows:]
        return cut

    def _path(self, work: Work) -> float:
        """About how long its race takes at least from here, whoever helps."""
        return self._each(work) * (OVERHEAD + min(work.width, work.waiting)) * (1 + work.later)

    def _each(self, work: Work) -> float:
        """About how long a network of it takes by itself; kinds of which nothing is known are like the others."""
        usual = median(self._seconds.values()) if self._seconds else 1.0
        return work.steps * self._seconds.get(work.kind, usual)
