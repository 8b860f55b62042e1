"""Races played on a cluster whose clock is only counted, by the schedule that every engine plans with."""

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
"""Of lanes, each at a point of its time that is drawn."""
NOISE = 0.1
"""How much a lane's time varies: the standard deviation of its logarithm."""
PARTS = 1_000
"""Of a makespan, in which workers are counted."""


@dataclass(frozen=True)
class Cost:
    """What lanes of a task take.

    Args:
        stacked: whether its networks go together, or one at a time.
        width: networks in a lane at most.
        steps: of each network.
        epochs: of each network.
        start: seconds to build a lane.
        step: seconds of a step, by the lane's width.
        evaluation: seconds of each network after each epoch.
    """

    stacked: bool
    width: int
    steps: int
    epochs: int
    start: float
    step: Mapping[int, float]
    evaluation: float

    def seconds(self, rows: int) -> float:
        """What a lane of so many takes."""
        step = float(np.interp(max(rows, MIN_STACK), list(self.step), list(self.step.values())))
        return self.start + self.steps * step + self.epochs * rows * self.evaluation

    @property
    def best(self) -> float:
        """What a network takes at the width that suits best."""
        return min(self.seconds(rows) / rows for rows in range(1, self.width + 1))

    @property
    def overhead(self) -> float:
        """As how many networks more a lane's step takes: by the line from the narrowest to its widest."""
        narrow, wide = MIN_STACK, self.width
        each = (self.step[wide] - self.step[narrow]) / (wide - narrow)
        return self.step[narrow] / each - narrow


@dataclass(frozen=True)
class Race:
    """A race as planning sees it.

    Args:
        task: on which.
        stages: how many trials it wants, again and again, each time when it has all of those before.
    """

    task: str
    stages: tuple[int, ...]


Name = tuple[int, int, int]
"""A trial: of which race, in which stage, and which of it."""


class Play:
    """Races that share a cluster, all from the start, on a clock that is only counted.

    Args:
        costs: what lanes of each task take.
        racing: the races.
        workers: how many there are.
        failing: the share of lanes that fail on the way.
        noise: how much their times vary.
        gone: when workers go for good, and how many, that were side by side.
        poison: trials that fail whenever they are tried.
        planning: who plans.
        seed: of what is drawn.
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
        self.scheduler, self.luck, self.gone = planning(workers), random.Random(seed), gone or (math.inf, 0)
        self.done: list[Name] = []
        self.given_up: list[Name] = []
        self.spans: list[tuple[float, float, bool]] = []  # from, to, and whether anything came of it
        self.slots: dict[TrialStack, int] = {}
        self.free = list(range(workers))
        self.planned = 0.0
        self._events: list[tuple[float, int, TrialStack | None]] = []
        self._ends: dict[
            TrialStack, tuple[float, float, bool]
        ] = {}  # when, how long it takes in all, and whether it fails
        self._order = count()
        self._run()

    def _run(self) -> None:
        now = told = 0.0
        for i in range(len(self.racing)):
            self._want(i, 0)
        heappush(self._events, (self.gone[0], next(self._order), None))
        self._give(now)
        while self._ends:
            now, _, stack = heappop(self._events)
            if stack is None:
                self._lose(now, self.gone[1])
            elif stack in self._ends:
                self._end(stack, now, failed=self._ends[stack][2])
            if now > told + REPORT_INTERVAL:
                told = now
                for each in self.scheduler.running:
                    each.share = (now - each.started) / self._ends[each][1]
            self._give(now)

    def _want(self, race: int, stage: int) -> None:
        """Have the schedule get a race's next trials done."""
        task, stages = self.racing[race].task, self.racing[race].stages
        cost, trials = self.costs[task], [(race, stage, i) for i in range(stages[stage])]
        later_phases = len(stages) - stage - 1
        self.scheduler.groups.append(TrialGroup(trials, task, cost.steps, cost.width, later_phases, (race, stage)))

    def _give(self, now: float) -> None:
        """Give every free worker something to do."""
        began = time.perf_counter()
        new = list(iter(self.scheduler.next, None))
        self.planned += time.perf_counter() - began
        for stack in new:
            cost = self.costs[self.racing[stack.group.payload[0]].task]
            seconds = cost.seconds(len(stack.trials)) * math.exp(self.luck.gauss(0, self.noise))
            bad = self.luck.random() < self.failing or not self.poison.isdisjoint(stack.trials)
            stack.started = now
            self._ends[stack] = now + seconds * (self.luck.random() if bad else 1), seconds, bad
            self.slots[stack] = self.free.pop()
            heappush(self._events, (self._ends[stack][0], next(self._order), stack))

    def _end(self, stack: TrialStack, now: float, *, failed: bool) -> None:
        """Tell the schedule that a part is done, or has failed, and its race."""
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
                self._want(race, stage + 1)

    def _lose(self, now: float, workers: int) -> None:
        """Have workers go, and what they are at fail."""
        self.scheduler.workers -= workers
        for stack in [stack for stack, slot in self.slots.items() if slot < workers]:
            self._end(stack, now, failed=True)
        self.free = [slot for slot in self.free if slot >= workers]

    @property
    def makespan(self) -> float:
        """When all is done."""
        return max(end for _, end, _ in self.spans)

    @property
    def ideal(self) -> float:
        """The makespan, were every network trained once at the best width, and all workers busy to the end."""
        alone = self.needed / self.workers
        when, fewer = self.gone
        return alone if alone <= when else when + (self.needed - when * self.workers) / (self.workers - fewer)

    @property
    def needed(self) -> float:
        """What all networks take of a worker, at the width that suits each best."""
        return sum(sum(race.stages) * self.costs[race.task].best for race in self.racing)

    @property
    def path(self) -> float:
        """What the longest race takes, however many workers there are: its stages one after the other."""
        return max(len(race.stages) * self.costs[race.task].seconds(MIN_STACK) for race in self.racing)

    @property
    def occupied(self) -> float:
        """How long workers were at work, all together."""
        return sum(end - start for start, end, _ in self.spans)

    def busy(self, stacks: int = PARTS) -> np.ndarray:
        """The share of workers, of those there are, that are busy in each of so many parts of the makespan."""
        edges = np.linspace(0, self.makespan, stacks + 1)
        starts, ends = (np.sort([span[i] for span in self.spans]) for i in (0, 1))

        def until(times: np.ndarray, edges: np.ndarray) -> np.ndarray:
            """The sum of what has passed since each time, at each edge."""
            before, sums = np.searchsorted(times, edges), np.concatenate([[0.0], np.cumsum(times)])
            return before * edges - sums[before]

        there = self.workers * np.diff(edges) - self.gone[1] * np.diff(np.maximum(edges, min(self.gone[0], edges[-1])))
        return np.diff(until(starts, edges) - until(ends, edges)) / there

    def told(self) -> dict[str, Any]:
        """What is kept of it: times in seconds, shares of workers' time."""
        busy = self.busy()[: PARTS * 95 // 100]
        window = PARTS // 100
        spent = sum(end - start for start, end, good in self.spans if not good)
        return {
            "workers": self.workers,
            "makespan": round(self.makespan, 2),
            "ideal": round(self.ideal, 2),
            "longest_path": round(self.path, 2),
            "over": round(self.makespan / max(self.ideal, self.path), 3),
            "busy": round(float(busy.mean()), 4),
            "least_busy": round(float(np.convolve(busy, np.ones(window) / window, "valid").min()), 4),
            "useful": round(self.needed / self.occupied, 4),
            "lost": round(spent / self.occupied, 4),
            "lanes": len(self.spans),
            "failed_lanes": sum(not good for *_, good in self.spans),
            "lost_trials": self.scheduler.lost,
            "given_up": len(self.given_up),
            "planning": round(self.planned, 2),
        }
