"""Final runs of a race, trained once more to be looked at: to the bit they are the runs that were judged."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradprix.race._lane import Lane
from gradprix.race._network import Form, quiet
from gradprix.race._trial import Outcome, Trial
from gradprix.tasks import Task

from ._measure import Looked, Point, measure

Tensors = Mapping[str, Tensor]

MOVES = 100
"""Steps of a run at which its moves are recorded."""
LOOKS = 24
"""Steps of a run at which its networks are looked into, if time allows."""
WHOLLY = 3
"""Every so manyth of them wholly, with noise and sharpness."""


@dataclass
class Seen:
    """What was seen of one run.

    Args:
        steps: at which moves were recorded, from 1.
        factors: on the learning rate at those.
        updates: lengths of updates.
        gradients: lengths of gradients.
        weights: lengths of all weights that move.
        along: how far each update goes against its gradient, −u · g.
        points: what was found inside, where it was looked at.
        outcome: how it ended.
    """

    steps: list[int] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    gradients: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    along: list[float] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    outcome: Outcome | None = None


def watch(task: Task, trials: Sequence[Trial], how: Form, seconds: float) -> list[Seen]:
    """Train networks again, and look.

    Args:
        task: the problem.
        trials: alike in batch size, epochs, schedule and in whether they are judged, those of one form side by side.
        how: the form of the race.
        seconds: how long looking into them may take, besides training; what is left out is what time is short for.
    """
    with quiet():
        lane = Watched(task, trials, how, seconds)
        outcomes = lane.run(lambda share: None)
    for seen, outcome in zip(lane.seen, outcomes, strict=False):
        seen.outcome = outcome
    return lane.seen[: len(trials)]


class Watched(Lane):
    """A lane whose moves are recorded; the arguments are those of `watch`."""

    def __init__(self, task: Task, trials: Sequence[Trial], how: Form, seconds: float) -> None:
        super().__init__(task, trials, how)
        count = self.train.shape[1]
        self.steps = self.budget.epochs * -(-count // (self.budget.batch_size or count))
        self.at = {1 + round(i * (self.steps - 1) / (MOVES - 1)) for i in range(MOVES)}
        self.looks = {round((i + 0.5) / LOOKS * self.steps) or 1: i for i in range(LOOKS)}
        self.looked = {seed: Looked(task, seed) for seed in self.seeds}
        self.seconds, self.spent, self.t = seconds, 0.0, 0
        self.seen = [Seen() for _ in self.trials]

    def move(self, gradients: list[Tensor], factor: float) -> None:
        """Move as any lane does; at some steps, note by how much."""
        self.t += 1
        # Time is spent evenly over the run: a look that would be early for it is left out.
        looks = self.t in self.looks and self.spent <= self.seconds * self.t / self.steps
        if self.t not in self.at and not looks:
            return super().move(gradients, factor)
        before = {name: x.clone() for name, x in self.leaves.items()}
        super().move(gradients, factor)
        update = {name: x - before[name] for name, x in self.leaves.items()}
        if self.t in self.at:
            self._note_moves(update, gradients, before, factor)
        if looks:
            self._look(update, before)

    def _note_moves(self, update: Tensors, gradients: list[Tensor], before: Tensors, factor: float) -> None:
        lengths = [_lengths(part) for part in (update.values(), gradients, before.values())]
        ways = [(u * g).flatten(1).double().sum(1) for u, g in zip(update.values(), gradients, strict=True)]
        numbers = [*lengths, -torch.stack(ways).sum(0)]
        for row, *found in zip(self.rows.tolist(), *(x.tolist() for x in numbers), strict=True):
            seen = self.seen[row]
            lists = (seen.steps, seen.factors, seen.updates, seen.gradients, seen.weights, seen.along)
            for into, value in zip(lists, (self.t, factor, *found), strict=True):
                into.append(value)

    @torch.enable_grad()
    def _look(self, update: Tensors, before: Tensors) -> None:
        started = time.perf_counter()
        wholly = self.looks[self.t] % WHOLLY == WHOLLY // 2
        for place, row in enumerate(self.rows.tolist()):
            if row < self.count and self.diverged[row] is None:
                weights = {name: x[place].clone() for name, x in {**self.rest, **before}.items()}
                own = {name: x[place].clone() for name, x in update.items()}
                trial = self.trials[row]
                found = measure(self.looked[trial.seed], weights, own, self.t / self.steps, trial.batch_size, wholly)
                self.seen[row].points.append(found)
        self.spent += time.perf_counter() - started


def _lengths(stacks: Iterable[Tensor]) -> Tensor:
    """Each row's length over all of its tensors, `[rows]`."""
    squares = [x.flatten(1).double().square().sum(1) for x in stacks]
    return torch.stack(squares).sum(0).sqrt()
