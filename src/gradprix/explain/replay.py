"""Replay of a race's final runs with measurements; bitwise identical to the original runs."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradprix.kernels import StackedRule
from gradprix.rules import Rule
from gradprix.tasks import Task
from gradprix.tasks.schedules import count_steps
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.model_stack import quiet
from gradprix.training.trainer import Trainer
from gradprix.training.trial import Outcome, Trial
from gradprix.utils.devices import CPU, placed

from .loss_probe import LossProbe
from .network_measures import Point, measure
from .preconditioner import gain, settles_below

Tensors = Mapping[str, Tensor]
MOVES = 100
"""Number of steps at which update statistics are recorded."""
LOOKS = 24
"""Number of steps at which networks are measured, if time allows."""
WHOLLY = 3
"""Every nth of these measurements includes gradient noise and sharpness."""


@dataclass
class ReplayedRun:
    """Measurements of one run.

    Args:
        steps: recorded steps, from 1.
        updates: norms of the updates.
        gradients: norms of the gradients.
        weights: norms of the trained weights.
        along: projections of the updates on the negative gradients, −u · g.
        points: measurements of the network.
        outcome: final outcome of the run.
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
        """True if the run did not diverge."""
        return self.outcome is None or self.outcome.diverged is None


def watch(task: Task, trials: Sequence[Trial], how: ExecutionMode, seconds: float) -> list[ReplayedRun]:
    """Train networks again and measure them.

    Args:
        task: the problem.
        trials: trials with the same batch size, epochs, schedule and evaluation; those of one stack form in sequence.
        how: execution mode of the race; measurements always run on the CPU.
        seconds: time limit for the measurements, without training; measurements beyond it are skipped.
    """
    with quiet(how.device):
        trainer = ReplayTrainer(task, trials, how, seconds)
        outcomes = trainer.run(lambda share: None)
    for run, outcome in zip(trainer.runs, outcomes, strict=False):
        run.outcome = outcome
    return trainer.runs[: len(trials)]


class ReplayTrainer(Trainer):
    """A trainer that records updates; takes the arguments of `watch`."""

    def __init__(self, task: Task, trials: Sequence[Trial], how: ExecutionMode, seconds: float) -> None:
        super().__init__(task, trials, how)
        count = self.train.shape[1]
        self.steps = count_steps(count, self.budget.batch_size, self.budget.epochs)
        self.recorded_steps = {1 + round(i * (self.steps - 1) / (MOVES - 1)) for i in range(MOVES)}
        chosen_steps = sorted({max(1, round((i + 0.5) / LOOKS * self.steps)) for i in range(LOOKS)})
        self.measurement_steps = {t: i % WHOLLY == WHOLLY // 2 for i, t in enumerate(chosen_steps)}
        self.probes = {seed: LossProbe(task, seed) for seed in self.seeds}
        self.earlier: dict[int, Tensors] = {}
        self.seconds, self.spent, self.t = seconds, 0.0, 0
        self.runs = [ReplayedRun() for _ in self.trials]

    def move(self, gradients: list[Tensor], factor: float) -> None:
        """Update the models; at selected steps also record the updates and measure the networks."""
        self.t += 1
        # Spread the time limit evenly over the run: skip a measurement that would exceed its share so far.
        is_measured = self.t in self.measurement_steps and self.spent <= self.seconds * self.t / self.steps
        if self.t not in self.recorded_steps and not is_measured:
            return super().move(gradients, factor)
        before = {name: x.clone() for name, x in self.leaves.items()}
        super().move(gradients, factor)
        update = {name: x - before[name] for name, x in self.leaves.items()}
        if self.t in self.recorded_steps:
            self._record_updates(update, gradients, before)
        if is_measured:
            self._measure_networks(update, before, factor)

    def _record_updates(self, update: Tensors, gradients: list[Tensor], before: Tensors) -> None:
        lengths = [_row_norms(part) for part in (update.values(), gradients, before.values())]
        products = [_flatten_rows(u * g).sum(1) for u, g in zip(update.values(), gradients, strict=True)]
        statistics = [*lengths, -torch.stack(products).sum(0)]
        for row, *values in zip(self.rows.tolist(), *(x.tolist() for x in statistics), strict=True):
            run = self.runs[row]
            lists = (run.steps, run.updates, run.gradients, run.weights, run.along)
            for target, value in zip(lists, (self.t, *values), strict=True):
                target.append(value)

    @torch.enable_grad()
    def _measure_networks(self, update: Tensors, before: Tensors, factor: float) -> None:
        start_time = time.perf_counter()
        for place, row in enumerate(self.rows.tolist()):
            if row >= self.count or self.diverged[row] is not None:
                continue
            weights, own = (
                {name: x[place].to(CPU, copy=True) for name, x in stacks.items()}
                for stacks in ({**self.rest, **before}, update)
            )
            trial = self.trials[row]
            point = measure(
                self.probes[trial.seed],
                weights,
                own,
                self.earlier.get(row),
                trial.batch_size,
                self.t / self.steps,
                factor,
                self.measurement_steps[self.t],
                self._gains(place, trial, factor) if self.measurement_steps[self.t] else None,
            )
            if point.finite:
                self.runs[row].points.append(point)
            self.earlier[row] = weights
        self.spent += time.perf_counter() - start_time

    def _gains(self, place: int, trial: Trial, factor: float) -> Tensors | None:
        """Return the rule's gain for each weight of a row; None if it has none or is no rule."""
        assert self.optimizers is not None
        if not isinstance(trial.rule, Rule) or settles_below(trial.rule, tuple(sorted(trial.values.items()))) is None:
            return None
        values, names, gains = {**trial.values, "lr": trial.values["lr"] * factor}, list(self.leaves), {}
        for block, chosen, stepper in self.optimizers.blocks:
            if not block.start <= place < block.stop or not isinstance(stepper, StackedRule):
                continue
            for k, index in enumerate(chosen):
                state = placed(stepper.row_state(place - block.start, k), CPU)
                x = self.leaves[names[index]][place]
                gains[names[index]] = gain(trial.rule, values, stepper.t, state).to(x.dtype).expand(x.shape)
        return gains if len(gains) == len(names) else None


def _flatten_rows(stack: Tensor) -> Tensor:
    """Flatten each row of a stack, in double precision."""
    return stack.reshape(len(stack), -1).to(CPU).double()


def _row_norms(stacks: Iterable[Tensor]) -> Tensor:
    """Return each row's norm over all of its tensors, `[rows]`."""
    return torch.stack([_flatten_rows(x).square().sum(1) for x in stacks]).sum(0).sqrt()
