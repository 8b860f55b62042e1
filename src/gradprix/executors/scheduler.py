"""Scheduler that all executors share: decides how many trials of a group form the next stack.

A stack is formed when a worker becomes free for it: as large as pays while there is work for all workers, smaller
towards the end, so that all workers finish together (guided self-scheduling, Polychronopoulos & Kuck 1987,
doi:10.1109/TC.1987.5009495). Trials of the race with the longest remaining time go first. The place of a trial and the
other trials in its stack change none of its numbers, so scheduling may depend on measured times.
`benchmarks/scale.py` simulates it with a thousand workers.
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
class TrialGroup:
    """Trials requested by a race that can share a stack: their `stack_key` is the same.

    Args:
        trials: the trials, sorted so that those best stacked together are adjacent.
        kind: stacks of one kind have equal cost.
        steps: training steps of each trial.
        width: maximum number of trials in a stack.
        later_phases: number of times that the race will request trials after these.
        payload: data that the executor needs to train them.
        retries: stacks of its trials that failed and are tried again.
    """

    trials: list[Any]
    kind: Hashable
    steps: float
    width: int
    later_phases: int = 0
    payload: Any = None
    retries: list["TrialStack"] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """The number of trials that are not running."""
        return len(self.trials) + sum(len(stack.trials) for stack in self.retries)


@dataclass(eq=False)
class TrialStack:
    """Trials of a group that are trained together.

    Args:
        group: the group that they belong to.
        trials: the trials.
        losses: number of times that exactly these trials were lost.
        share: completed share of the training.
        started: start time on the executor's clock.
        suspect: True if it must run alone, to find out if it kills other workers.
    """

    group: TrialGroup
    trials: list[Any]
    losses: int = 0
    share: float = 0.0
    started: float = 0.0
    suspect: bool = False


class Scheduler:
    """All requested trials that are not finished.

    Args:
        workers: maximum number of stacks that run at the same time.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self.groups: list[TrialGroup] = []
        self.running: list[TrialStack] = []
        self.suspects: list[TrialStack] = []
        self.lost = 0
        self._seconds: dict[Hashable, float] = {}  # seconds of one model's step, by kind
        self._median_seconds = 1.0

    def next(self) -> TrialStack | None:
        """Return the next stack for a worker; None if nothing waits or no worker is free."""
        waiting = [group for group in self.groups if group.waiting]
        if any(stack.suspect for stack in self.running) or len(self.running) >= self.workers:
            return None
        if waiting:
            group = max(waiting, key=self._urgency)
            stack = group.retries.pop() if group.retries else TrialStack(group, self._take_trials(group))
        elif self.suspects and not self.running:
            stack = self.suspects.pop()
        else:
            return None
        self.running.append(stack)
        return stack

    def finished(self, stack: TrialStack, seconds: float) -> None:
        """Record that a stack has finished, and its duration."""
        self.running.remove(stack)
        seconds_per_step = seconds / (stack.group.steps * (OVERHEAD + len(stack.trials)))
        self._seconds[stack.group.kind] = (self._seconds.get(stack.group.kind, seconds_per_step) + seconds_per_step) / 2
        self._median_seconds = median(self._seconds.values())

    def failed(self, stack: TrialStack, blamed: bool = True) -> bool:
        """Record that a stack failed or was lost; return True if the race must continue without its trials.

        The trials are retried in halves: the stack may have been too large, and a trial that kills its worker should
        affect no others.

        Args:
            stack: the stack.
            blamed: False if another stack that ran at the same time may be the cause.
        """
        self.running.remove(stack)
        self.lost += len(stack.trials)
        middle = len(stack.trials) // 2
        if middle:
            stack.group.retries += [
                TrialStack(stack.group, half) for half in (stack.trials[middle:], stack.trials[:middle])
            ]
        elif stack.losses + blamed < LOSSES:
            retry = TrialStack(stack.group, stack.trials, stack.losses + blamed, suspect=stack.suspect or not blamed)
            (self.suspects if retry.suspect else stack.group.retries).append(retry)
        else:
            return True
        return False

    def drop(self, group: TrialGroup) -> list[TrialStack]:
        """Remove a group and return its running stacks."""
        dropped = [stack for stack in self.running if stack.group is group]
        self.groups.remove(group)
        self.suspects = [stack for stack in self.suspects if stack.group is not group]
        self.running = [stack for stack in self.running if stack.group is not group]
        return dropped

    def left(self, group: TrialGroup) -> int:
        """Return the number of unfinished trials of a group."""
        active = [stack for stack in (*self.running, *self.suspects) if stack.group is group]
        return group.waiting + sum(len(stack.trials) for stack in active)

    def _take_trials(self, group: TrialGroup) -> list[Any]:
        """Take a worker's share of the remaining trials, divided into as many equal parts as the stack size requires.

        A race that runs alone gets an equal share per worker: no other race could use the time that a longer stack
        leaves.
        """
        own_seconds, all_seconds = (
            float(group.waiting),
            sum(self._trial_seconds(other) * other.waiting for other in self.groups),
        )
        for stack in self.running:
            remaining = len(stack.trials) * (1 - stack.share)
            all_seconds += self._trial_seconds(stack.group) * remaining
            own_seconds += remaining * (stack.group is group)
        share = max(own_seconds, AMONG_OTHERS * all_seconds / self._trial_seconds(group)) / self.workers
        stacks = max(1, math.ceil(share / group.width - 1e-9))
        min_rows, count = min(MIN_STACK, group.width), len(group.trials)
        rows = min(max(math.ceil(share / stacks - 1e-9), min_rows), group.width, count)
        if 0 < count - rows < min_rows:
            rows = count if count <= group.width else count - min_rows
        taken, group.trials = group.trials[:rows], group.trials[rows:]
        return taken

    def _urgency(self, group: TrialGroup) -> tuple[bool, float]:
        """Return the sort key of a group: unmeasured kinds, which may take longest, then the race's remaining time."""
        is_unmeasured = group.kind not in self._seconds and all(
            stack.group.kind != group.kind for stack in self.running
        )
        return is_unmeasured, self._trial_seconds(group) * (1 + group.later_phases)

    def _trial_seconds(self, group: TrialGroup) -> float:
        """Estimate the seconds of one trial alone; unmeasured kinds get the median."""
        return group.steps * self._seconds.get(group.kind, self._median_seconds)
