"""Scheduler used by all executors: it decides which trials form the next stack, and how many.

A stack is formed when a worker becomes free. Stacks are large while there is work for all workers, and smaller towards
the end, so that all workers finish at about the same time (guided self-scheduling, Polychronopoulos & Kuck 1987,
doi:10.1109/TC.1987.5009495). Trials of the race with the longest remaining time go first. The results of a trial depend
neither on its worker nor on the other trials in its stack, so scheduling may depend on measured times.
`benchmarks/scale.py` simulates this scheduler with a thousand workers.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from gradprix.training import MIN_STACK

OVERHEAD = 1
"""Fixed cost of a step of a stack, independent of its size, in units of the cost of one model's step. In the median of
the built-in tasks, it is little more than the cost of the spare row (benchmarks/scale.json)."""
AMONG_OTHERS = 0.5
"""Fraction of the remaining work that is divided among workers at once if several races share them. The rest is held
back, because time estimates are inaccurate, stacks may fail, and a race requests its next trials only after its last
stack has completed (factoring, Hummel, Schonberg & Flynn 1992, doi:10.1145/135226.135232)."""
LOSSES = 3
"""Number of times that a stack of one trial may fail or lose its worker before the race continues without the trial."""


@dataclass(eq=False)
class TrialGroup:
    """Trials requested by a race that can share a stack, since their `stack_key` is the same.

    Args:
        trials: the trials that have not been put into a stack, sorted so that trials with the same update code are
            adjacent.
        kind: identifier of the cost: a training step of a model costs the same in all groups of one kind.
        steps: number of training steps of each trial.
        width: maximum number of trials in a stack.
        later_phases: number of times that the race will request further trials after these.
        payload: data that the executor needs to train the trials.
        retries: stacks of this group that have failed and wait to be retried.
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
        """The number of trials that wait for a worker."""
        return len(self.trials) + sum(len(stack.trials) for stack in self.retries)


@dataclass(eq=False)
class TrialStack:
    """Trials of a group that are trained together.

    Args:
        group: the group that the trials belong to.
        trials: the trials.
        losses: number of times that a stack of exactly these trials has failed or lost its worker.
        share: completed fraction of the training.
        started: start time on the executor's clock, in seconds.
        suspect: True if no other stack may run at the same time, to find out if this stack kills workers.
    """

    group: TrialGroup
    trials: list[Any]
    losses: int = 0
    share: float = 0.0
    started: float = 0.0
    suspect: bool = False


class Scheduler:
    """Scheduler of the trials of all races that share an executor.

    Args:
        workers: maximum number of stacks that run at the same time.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self.groups: list[TrialGroup] = []
        self.running: list[TrialStack] = []
        self.suspects: list[TrialStack] = []
        self.lost = 0
        self._seconds: dict[Hashable, float] = {}  # measured seconds per step of one model, by kind of group
        self._median_seconds = 1.0

    def next(self) -> TrialStack | None:
        """Return the next stack to run. Returns None if no trial waits or no worker is free."""
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
        """Record that a stack has finished after a number of seconds."""
        self.running.remove(stack)
        seconds_per_step = seconds / (stack.group.steps * (OVERHEAD + len(stack.trials)))
        self._seconds[stack.group.kind] = (self._seconds.get(stack.group.kind, seconds_per_step) + seconds_per_step) / 2
        self._median_seconds = median(self._seconds.values())

    def failed(self, stack: TrialStack, blamed: bool = True) -> bool:
        """Record that a stack failed or lost its worker; return True if it must not be retried any more.

        Stacks of several trials are retried in halves, since the stack may have been too large, and since a trial that
        kills its worker should not affect other trials.

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
        """Remove a group from the schedule and return its running stacks."""
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
        """Remove the trials of the next stack from a group and return them.

        The trials that one worker should get of the remaining work are divided into equal stacks, as few as the maximum
        stack size permits. If a race runs alone, its remaining trials are divided equally among the workers. If it does
        not, stacks may be larger, since other races keep the remaining workers busy.
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
        """Return the sort key of a group; the group with the largest key is scheduled first.

        First come groups whose cost has not been measured, since they may take longest, then groups of the race with
        the longest remaining time.
        """
        is_unmeasured = group.kind not in self._seconds and all(
            stack.group.kind != group.kind for stack in self.running
        )
        return is_unmeasured, self._trial_seconds(group) * (1 + group.later_phases)

    def _trial_seconds(self, group: TrialGroup) -> float:
        """Estimate the training time of one trial in seconds; unmeasured kinds get the median of the measured ones."""
        return group.steps * self._seconds.get(group.kind, self._median_seconds)
