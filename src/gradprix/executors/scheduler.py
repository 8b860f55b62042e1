"""Which trials are trained together next: what every engine plans with.

A lane is cut when a worker is free for it, and not before: as wide as pays while there is work for everybody, narrower
towards the end, so that all workers end together (guided self-scheduling, Polychronopoulos & Kuck 1987,
doi:10.1109/TC.1987.5009495). What keeps its race going longest goes first. Where a trial is trained, and with which
others, changes no number of it, so all this may depend on how long things take. `benchmarks/scale.py` plays it on a
thousand workers.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from gradprix.training.trainer import NARROWEST

OVERHEAD = 1
"""A step of a lane takes as long as the steps of so many of its networks more, whatever its width: in the median of the
built-in tasks little more than its spare row (benchmarks/scale.json)."""
AMONG_OTHERS = 0.5
"""What a worker gets, of its even share of all there is left to do: estimates are wrong, lanes fail, and what a race
will want next waits for its last lane (factoring, Hummel, Schonberg & Flynn 1992, doi:10.1145/135226.135232)."""
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
        suspect: whether it is to be tried by itself, to know whether it takes others with it.
    """

    work: Work
    trials: list[Any]
    losses: int = 0
    share: float = 0.0
    started: float = 0.0
    suspect: bool = False


class Schedule:
    """Everything that is wanted and not yet done.

    Args:
        workers: how many parts can be under way at once.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self.works: list[Work] = []
        self.running: list[Part] = []
        self.suspects: list[Part] = []
        self.lost = 0
        self._seconds: dict[Hashable, float] = {}  # of a network's step, by kind
        self._usual = 1.0  # of them

    def next(self) -> Part | None:
        """What a worker should do now; None when nothing waits, or no worker is free."""
        waiting = [work for work in self.works if work.waiting]
        if any(part.suspect for part in self.running) or len(self.running) >= self.workers:
            return None
        if waiting:
            work = max(waiting, key=self._urgency)
            part = work.again.pop() if work.again else Part(work, self._cut(work))
        elif self.suspects and not self.running:
            part = self.suspects.pop()
        else:
            return None
        self.running.append(part)
        return part

    def finished(self, part: Part, seconds: float) -> None:
        """Learn that a part is done, and how long it took."""
        self.running.remove(part)
        took = seconds / (part.work.steps * (OVERHEAD + len(part.trials)))
        self._seconds[part.work.kind] = (self._seconds.get(part.work.kind, took) + took) / 2
        self._usual = median(self._seconds.values())

    def failed(self, part: Part, blamed: bool = True) -> bool:
        """Learn that a part failed, or that its worker is gone. True when the race must go on without its trials.

        They are tried again in halves: they may have been too many, and if one of them is to blame, it should take no
        other with it.

        Args:
            part: which.
            blamed: whether it is to blame, and not one that ran beside it.
        """
        self.running.remove(part)
        self.lost += len(part.trials)
        middle = len(part.trials) // 2
        if middle:
            part.work.again += [Part(part.work, half) for half in (part.trials[middle:], part.trials[:middle])]
        elif part.losses + blamed < LOSSES:
            once_more = Part(part.work, part.trials, part.losses + blamed, suspect=part.suspect or not blamed)
            (self.suspects if once_more.suspect else part.work.again).append(once_more)
        else:
            return True
        return False

    def drop(self, work: Work) -> list[Part]:
        """Forget some work; what of it is under way, which nobody wants any more."""
        dropped = [part for part in self.running if part.work is work]
        self.works.remove(work)
        self.suspects = [part for part in self.suspects if part.work is not work]
        self.running = [part for part in self.running if part.work is not work]
        return dropped

    def left(self, work: Work) -> int:
        """How many trials of it are not done."""
        under_way = [part for part in (*self.running, *self.suspects) if part.work is work]
        return work.waiting + sum(len(part.trials) for part in under_way)

    def _cut(self, work: Work) -> list[Any]:
        """Trials for a worker: its share of what is left to do, in as many even turns as the width asks for.

        Of a race by itself that is its even share: nothing else could fill the time that one lane takes longer.
        """
        own, left = float(work.waiting), sum(self._each(other) * other.waiting for other in self.works)
        for part in self.running:
            rest = len(part.trials) * (1 - part.share)
            left += self._each(part.work) * rest
            own += rest * (part.work is work)
        share = max(own, AMONG_OTHERS * left / self._each(work)) / self.workers
        turns = max(1, math.ceil(share / work.width - 1e-9))
        least, count = min(NARROWEST, work.width), len(work.trials)
        rows = min(max(math.ceil(share / turns - 1e-9), least), work.width, count)
        if 0 < count - rows < least:
            rows = count if count <= work.width else count - least
        cut, work.trials = work.trials[:rows], work.trials[rows:]
        return cut

    def _urgency(self, work: Work) -> tuple[bool, float]:
        """Whether it must be tried, since it may take longer than all others; about how long its race goes on."""
        untried = work.kind not in self._seconds and all(part.work.kind != work.kind for part in self.running)
        return untried, self._each(work) * (1 + work.later)

    def _each(self, work: Work) -> float:
        """About how long a network of it takes by itself; kinds of which nothing is known are like the others."""
        return work.steps * self._seconds.get(work.kind, self._usual)
