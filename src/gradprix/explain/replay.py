"""Final runs of a race, trained once more to be looked at: to the bit they are the runs that were judged."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradprix.kernels import Stacked
from gradprix.rules import Rule
from gradprix.tasks import Task
from gradprix.tasks.schedules import count_steps
from gradprix.training.model_stack import Form, quiet
from gradprix.training.trainer import Lane
from gradprix.training.trial import Outcome, Trial
from gradprix.utils.devices import CPU, placed

from .loss_probe import Looked
from .network_measures import Point, measure
from .preconditioner import gain, settles_below

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
        updates: lengths of updates.
        gradients: lengths of gradients.
        weights: lengths of all weights that move.
        along: how far each update goes against its gradient, −u · g.
        points: what was found inside, where it was looked at.
        outcome: how it ended.
    """

    steps: list[int] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    gradients: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    along: list[float] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    outcome: Outcome | None = None

    @property
    def lasted(self) -> bool:
        """Whether the run came to its end."""
        return self.outcome is None or self.outcome.diverged is None


def watch(task: Task, trials: Sequence[Trial], how: Form, seconds: float) -> list[Seen]:
    """Train networks again, and look.

    Args:
        task: the problem.
        trials: alike in batch size, epochs, schedule and in whether they are judged, those of one form side by side.
        how: the form of the race; a look is always taken on the CPU.
        seconds: how long looking into them may take, besides training; what is left out is what time is short for.
    """
    with quiet(how.device):
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
        self.steps = count_steps(count, self.budget.batch_size, self.budget.epochs)
        self.at = {1 + round(i * (self.steps - 1) / (MOVES - 1)) for i in range(MOVES)}
        looks = sorted({max(1, round((i + 0.5) / LOOKS * self.steps)) for i in range(LOOKS)})
        self.looks = {t: i % WHOLLY == WHOLLY // 2 for i, t in enumerate(looks)}
        self.looked = {seed: Looked(task, seed) for seed in self.seeds}
        self.earlier: dict[int, Tensors] = {}
        self.seconds, self.spent, self.t = seconds, 0.0, 0
        self.seen = [Seen() for _ in self.trials]

    def move(self, gradients: list[Tensor], factor: float) -> None:
        """Move as any lane does; at some steps, note by how much, and look."""
        self.t += 1
        # Time is spent evenly over the run: a look that would be early for it is left out.
        looks = self.t in self.looks and self.spent <= self.seconds * self.t / self.steps
        if self.t not in self.at and not looks:
            return super().move(gradients, factor)
        before = {name: x.clone() for name, x in self.leaves.items()}
        super().move(gradients, factor)
        update = {name: x - before[name] for name, x in self.leaves.items()}
        if self.t in self.at:
            self._note_moves(update, gradients, before)
        if looks:
            self._look(update, before, factor)

    def _note_moves(self, update: Tensors, gradients: list[Tensor], before: Tensors) -> None:
        lengths = [_lengths(part) for part in (update.values(), gradients, before.values())]
        ways = [_rows(u * g).sum(1) for u, g in zip(update.values(), gradients, strict=True)]
        numbers = [*lengths, -torch.stack(ways).sum(0)]
        for row, *found in zip(self.rows.tolist(), *(x.tolist() for x in numbers), strict=True):
            seen = self.seen[row]
            lists = (seen.steps, seen.updates, seen.gradients, seen.weights, seen.along)
            for into, value in zip(lists, (self.t, *found), strict=True):
                into.append(value)

    @torch.enable_grad()
    def _look(self, update: Tensors, before: Tensors, factor: float) -> None:
        started = time.perf_counter()
        for place, row in enumerate(self.rows.tolist()):
            if row >= self.count or self.diverged[row] is not None:
                continue
            weights, own = (
                {name: x[place].to(CPU, copy=True) for name, x in stacks.items()}
                for stacks in ({**self.rest, **before}, update)
            )
            trial = self.trials[row]
            found = measure(
                self.looked[trial.seed],
                weights,
                own,
                self.earlier.get(row),
                trial.batch_size,
                self.t / self.steps,
                factor,
                self.looks[self.t],
                self._gains(place, trial, factor) if self.looks[self.t] else None,
            )
            if found.finite:
                self.seen[row].points.append(found)
            self.earlier[row] = weights
        self.spent += time.perf_counter() - started

    def _gains(self, place: int, trial: Trial, factor: float) -> Tensors | None:
        """The rule's gain for each weight of a row; None where it has none, or is no rule."""
        assert self.steppers is not None
        if not isinstance(trial.rule, Rule) or settles_below(trial.rule, tuple(sorted(trial.values.items()))) is None:
            return None
        values, names, found = {**trial.values, "lr": trial.values["lr"] * factor}, list(self.leaves), {}
        for block, chosen, stepper in self.steppers.each:
            if not block.start <= place < block.stop or not isinstance(stepper, Stacked):
                continue
            for k, index in enumerate(chosen):
                state = placed(stepper.remembered(place - block.start, k), CPU)
                x = self.leaves[names[index]][place]
                found[names[index]] = gain(trial.rule, values, stepper.t, state).to(x.dtype).expand(x.shape)
        return found if len(found) == len(names) else None


def _rows(stack: Tensor) -> Tensor:
    """Each row of a stack in one line, in double precision."""
    return stack.reshape(len(stack), -1).to(CPU).double()


def _lengths(stacks: Iterable[Tensor]) -> Tensor:
    """Each row's length over all of its tensors, `[rows]`."""
    return torch.stack([_rows(x).square().sum(1) for x in stacks]).sum(0).sqrt()
