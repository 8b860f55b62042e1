"""Simulation of races on a cluster, with a simulated clock and the scheduler that all executors use."""

import math
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any

import numpy as np

from gradprix.executors.executor import REPORT_INTERVAL
from gradprix.executors.scheduler import Scheduler, TrialGroup, TrialStack
from gradprix.training import MIN_STACK

FAILING = 0.01
"""Default probability that a stack fails, at a random time before its end."""
NOISE = 0.1
"""Default standard deviation of the logarithm of a stack's duration."""
PARTS = 1_000
"""Number of equal intervals of the makespan over which the share of busy workers is computed."""


@dataclass(frozen=True)
class Cost:
    """Durations of the parts of a task's training.

    Args:
        stacked: True if the networks of a stack are trained together, False if one at a time.
        width: maximum number of networks in a stack.
        steps: number of steps of a training run.
        epochs: number of epochs of a training run.
        start: seconds to build a stack.
        step: seconds of one step of a stack, by its width.
        evaluation: seconds to evaluate one network after an epoch.
    """

    stacked: bool
    width: int
    steps: int
    epochs: int
    start: float
    step: Mapping[int, float]
    evaluation: float

    def seconds(self, rows: int) -> float:
        """Return the duration of a stack of `rows` networks."""
        step = float(np.interp(max(rows, MIN_STACK), list(self.step), list(self.step.values())))
        return self.start + self.steps * step + self.epochs * rows * self.evaluation

    @property
    def best(self) -> float:
        """Seconds per network at the most efficient stack width."""
        return min(self.seconds(rows) / rows for rows in range(1, self.width + 1))

    @property
    def overhead(self) -> float:
        """Fixed cost of a step, in units of the cost of one more network in the stack.

        The cost of a network is the slope of the straight line from the narrowest to the widest stack.
        """
        narrow, wide = MIN_STACK, self.width
        each = (self.step[wide] - self.step[narrow]) / (wide - narrow)
        return self.step[narrow] / each - narrow


@dataclass(frozen=True)
class Race:
    """A race, as far as scheduling depends on it.

    Args:
        task: name of the task.
        stages: number of trials of each phase. A phase starts when all trials of the phase before are done.
    """

    task: str
    stages: tuple[int, ...]


Name = tuple[int, int, int]
"""Identity of a trial: the indices of its race, of its phase, and of the trial in the phase."""


class Simulation:
    """Simulation of races that start at the same time and share a cluster.

    Args:
        costs: durations by name of the task.
        racing: the races.
        workers: number of workers.
        failing: probability that a stack fails before its end.
        noise: standard deviation of the logarithm of a stack's duration.
        gone: time at which workers are lost for good, and the number of lost workers; None if none are lost.
        poison: trials that fail at every attempt.
        planning: class of the scheduler.
        seed: seed of failures and durations.
    """

    def __init__(
        self,
        costs: Mapping[str, Cost],
        racing: Sequence[Race],
        workers: int,
        *,
        failing: float = FAILING,
        noise: float = NOISE,
        gone: tuple[float, int] | None = None,
        poison: Iterable[Name] = (),
        planning: type[Scheduler] = Scheduler,
        seed: int = 0,
    ) -> None:
        self.costs, self.racing, self.workers = costs, racing, workers
        self.failing, self.noise, self.poison = failing, noise, set(poison)
        self.scheduler, self.rng, self.gone = planning(workers), random.Random(seed), gone or (math.inf, 0)
        self.done: list[Name] = []
        self.given_up: list[Name] = []
        self.spans: list[tuple[float, float, bool]] = []  # start and end of each stack, and True if it succeeded
        self.slots: dict[TrialStack, int] = {}
        self.free = list(range(workers))
        self.planned = 0.0
        self._events: list[tuple[float, int, TrialStack | None]] = []
        self._ends: dict[TrialStack, tuple[float, float, bool]] = {}  # end, duration without failure, True if it fails
        self._order = count()
        self._run()

    def _run(self) -> None:
        now = last_report = 0.0
        for i in range(len(self.racing)):
            self._submit_phase(i, 0)
        heappush(self._events, (self.gone[0], next(self._order), None))
        self._assign_stacks(now)
        while self._ends:
            now, _, stack = heappop(self._events)
            if stack is None:
                self._remove_workers(now, self.gone[1])
            elif stack in self._ends:
                self._end_stack(stack, now, failed=self._ends[stack][2])
            if now > last_report + REPORT_INTERVAL:
                last_report = now
                for each in self.scheduler.running:
                    each.share = (now - each.started) / self._ends[each][1]
            self._assign_stacks(now)

    def _submit_phase(self, race: int, stage: int) -> None:
        """Submit the trials of a race's phase to the scheduler."""
        task, stages = self.racing[race].task, self.racing[race].stages
        cost, trials = self.costs[task], [(race, stage, i) for i in range(stages[stage])]
        later_phases = len(stages) - stage - 1
        self.scheduler.groups.append(TrialGroup(trials, task, cost.steps, cost.width, later_phases, (race, stage)))

    def _assign_stacks(self, now: float) -> None:
        """Assign a stack to each free worker, as long as the scheduler has one."""
        began = time.perf_counter()
        new = list(iter(self.scheduler.next, None))
        self.planned += time.perf_counter() - began
        for stack in new:
            cost = self.costs[self.racing[stack.group.payload[0]].task]
            seconds = cost.seconds(len(stack.trials)) * math.exp(self.rng.gauss(0, self.noise))
            bad = self.rng.random() < self.failing or not self.poison.isdisjoint(stack.trials)
            stack.started = now
            self._ends[stack] = now + seconds * (self.rng.random() if bad else 1), seconds, bad
            self.slots[stack] = self.free.pop()
            heappush(self._events, (self._ends[stack][0], next(self._order), stack))

    def _end_stack(self, stack: TrialStack, now: float, *, failed: bool) -> None:
        """Report to the scheduler that a stack is done or has failed, and submit the next phase if this one is done."""
        del self._ends[stack]
        self.free.append(self.slots.pop(stack))
        self.spans.append((stack.started, now, not failed))
        if failed:
            if not self.scheduler.failed(stack):
                return
            self.given_up += stack.trials
        else:
            self.scheduler.finished(stack, now - stack.started)
            self.done += stack.trials
        if not self.scheduler.left(stack.group):
            self.scheduler.drop(stack.group)
            race, stage = stack.group.payload
            if stage + 1 < len(self.racing[race].stages):
                self._submit_phase(race, stage + 1)

    def _remove_workers(self, now: float, workers: int) -> None:
        """Remove the first `workers` workers from the cluster. The stacks that they are training fail."""
        self.scheduler.workers -= workers
        for stack in [stack for stack, slot in self.slots.items() if slot < workers]:
            self._end_stack(stack, now, failed=True)
        self.free = [slot for slot in self.free if slot >= workers]

    @property
    def makespan(self) -> float:
        """Time at which the last stack ends."""
        return max(end for _, end, _ in self.spans)

    @property
    def ideal(self) -> float:
        """Makespan if every network were trained once, at the most efficient width, by workers that are always busy."""
        without_loss = self.needed / self.workers
        loss_time, lost = self.gone
        if without_loss <= loss_time:
            return without_loss
        return loss_time + (self.needed - loss_time * self.workers) / (self.workers - lost)

    @property
    def needed(self) -> float:
        """Worker time that training all networks takes, each at the most efficient width."""
        return sum(sum(race.stages) * self.costs[race.task].best for race in self.racing)

    @property
    def path(self) -> float:
        """Duration of the longest race with an unlimited number of workers: its phases one after the other."""
        return max(len(race.stages) * self.costs[race.task].seconds(MIN_STACK) for race in self.racing)

    @property
    def occupied(self) -> float:
        """Worker time that was spent on stacks, failed ones included."""
        return sum(end - start for start, end, _ in self.spans)

    def busy(self, intervals: int = PARTS) -> np.ndarray:
        """Return the share of the available workers that are busy, in equal intervals of the makespan.

        Args:
            intervals: number of intervals.
        """
        edges = np.linspace(0, self.makespan, intervals + 1)
        starts, ends = (np.sort([span[i] for span in self.spans]) for i in (0, 1))

        def until(times: np.ndarray, edges: np.ndarray) -> np.ndarray:
            """Return, for each edge, the sum of the time that has passed since each of the times before it."""
            before, sums = np.searchsorted(times, edges), np.concatenate([[0.0], np.cumsum(times)])
            return before * edges - sums[before]

        lost = self.gone[1] * np.diff(np.maximum(edges, min(self.gone[0], edges[-1])))
        return np.diff(until(starts, edges) - until(ends, edges)) / (self.workers * np.diff(edges) - lost)

    def summary(self) -> dict[str, Any]:
        """Return the results for the record: durations in seconds, and shares of the workers' time."""
        busy = self.busy()[: PARTS * 95 // 100]
        window = PARTS // 100
        wasted = sum(end - start for start, end, good in self.spans if not good)
        return {
            "workers": self.workers,
            "makespan": round(self.makespan, 2),
            "ideal": round(self.ideal, 2),
            "longest_path": round(self.path, 2),
            "over": round(self.makespan / max(self.ideal, self.path), 3),
            "busy": round(float(busy.mean()), 4),
            "least_busy": round(float(np.convolve(busy, np.ones(window) / window, "valid").min()), 4),
            "useful": round(self.needed / self.occupied, 4),
            "lost": round(wasted / self.occupied, 4),
            "lanes": len(self.spans),
            "failed_lanes": sum(not good for *_, good in self.spans),
            "lost_trials": self.scheduler.lost,
            "given_up": len(self.given_up),
            "planning": round(self.planned, 2),
        }
