"""Replay of a race's final runs, bitwise identical to the original runs, with measurements."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from gradprix.rules import Rule
from gradprix.tasks import Task
from gradprix.training import Callback, ExecutionMode, Outcome, Trainer, Trial
from gradprix.utils.devices import CPU, placed

from .loss_probe import LossProbe
from .measurement_cost import SUBSETS, measured_steps
from .network_measures import Point, measure
from .preconditioner import gain, settles_below

Tensors = Mapping[str, Tensor]
MOVES = 100
"""Number of steps at which update statistics are recorded."""


@dataclass
class ReplayedRun:
    """Measurements of one run.

    Args:
        steps: steps at which the update was recorded, from 1.
        updates: norm of the update at each recorded step.
        gradients: norm of the gradient at each recorded step.
        weights: norm of the trained weights before each recorded step.
        along: product of update and negative gradient, −u · g, at each recorded step.
        factors: the schedule's factor on the learning rate at each recorded step.
        points: measurements of the network, at fewer steps.
        outcome: outcome of the run; None until the run has ended.
    """

    steps: list[int] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    gradients: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    along: list[float] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    outcome: Outcome | None = None

    @property
    def lasted(self) -> bool:
        """True if the run did not diverge."""
        return self.outcome is None or self.outcome.diverged is None


def watch(
    task: Task, trials: Sequence[Trial], mode: ExecutionMode, points: tuple[int, ...] = SUBSETS[0]
) -> list[ReplayedRun]:
    """Replay the training of some trials and measure their networks.

    Args:
        task: the problem.
        trials: trials with the same batch size, epochs, schedule and evaluation.
        mode: execution mode of the race; measurements always run on the CPU.
        points: steps at which networks are measured, as indices in a grid of steps; see `measurement_cost`.

    Returns:
        One run per trial, in the given order.
    """
    recorder = UpdateRecorder(task, trials, points)
    outcomes = Trainer(task, trials, mode, [recorder]).run()
    for run, outcome in zip(recorder.runs, outcomes, strict=True):
        run.outcome = outcome
    return recorder.runs


class UpdateRecorder(Callback):
    """Callback that records statistics of the updates and measures the networks, both at selected steps.

    Args:
        task: the problem.
        trials: the trials of the trainer.
        points: steps at which networks are measured, as indices in a grid of steps.
    """

    def __init__(self, task: Task, trials: Sequence[Trial], points: tuple[int, ...]) -> None:
        self.runs = [ReplayedRun() for _ in trials]
        self.probes = {trial.seed: LossProbe(task, trial.seed) for trial in trials}
        self.points = points
        self.weights: dict[str, Tensor] | None = None  # before the current step, if it is recorded or measured
        self.gradients: Tensors = {}
        self.factor, self.is_measured = 1.0, False
        self._earlier: dict[int, Tensors] = {}

    def on_before_optimizer_step(self, trainer: Trainer, gradients: Tensors, factor: float) -> None:
        """Save the weights before a step that is recorded or measured."""
        self.is_measured = trainer.step in measured_steps(trainer.total_steps, self.points)
        if self.is_measured or trainer.step in _recorded_steps(trainer.total_steps):
            self.weights = {name: x.clone() for name, x in trainer.stack.parameters.items()}
            self.gradients, self.factor = gradients, factor

    def on_step_end(self, trainer: Trainer, losses: Tensor) -> None:
        """Record the updates and measure the networks."""
        if self.weights is None:
            return
        updates = {name: x - self.weights[name] for name, x in trainer.stack.parameters.items()}
        if trainer.step in _recorded_steps(trainer.total_steps):
            self._record_updates(trainer, updates, self.weights)
        if self.is_measured:
            self._measure_networks(trainer, updates, self.weights)
        self.weights = None

    def _record_updates(self, trainer: Trainer, updates: Tensors, weights: Tensors) -> None:
        norms = [_row_norms(part.values()) for part in (updates, self.gradients, weights)]
        products = [_flatten_rows(u * self.gradients[name]).sum(1) for name, u in updates.items()]
        statistics = [*norms, -torch.stack(products).sum(0)]
        for row, *values in zip(trainer.stack.rows.tolist(), *(x.tolist() for x in statistics), strict=True):
            if row >= trainer.stack.count:
                continue
            run = self.runs[trainer.order[row]]
            lists = (run.steps, run.factors, run.updates, run.gradients, run.weights, run.along)
            for target, value in zip(lists, (trainer.step, self.factor, *values), strict=True):
                target.append(value)

    def _measure_networks(self, trainer: Trainer, updates: Tensors, weights: Tensors) -> None:
        stack = trainer.stack
        is_complete = measured_steps(trainer.total_steps, self.points)[trainer.step]
        for place, row in enumerate(stack.rows.tolist()):
            if row >= stack.count or trainer.diverged[row] is not None:
                continue
            own_weights, own_updates = (
                {name: x[place].to(CPU, copy=True) for name, x in tensors.items()}
                for tensors in ({**stack.buffers, **weights}, updates)
            )
            trial = stack.trials[row]
            point = measure(
                self.probes[trial.seed],
                own_weights,
                own_updates,
                self._earlier.get(row),
                trial.batch_size,
                trainer.step / trainer.total_steps,
                self.factor,
                is_complete,
                _gains(trainer, place, trial, self.factor) if is_complete else None,
            )
            if point.finite:
                self.runs[trainer.order[row]].points.append(point)
            self._earlier[row] = own_weights


@cache
def _recorded_steps(steps: int) -> set[int]:
    """Return the steps at which updates are recorded, for a run of `steps` steps."""
    return {1 + round(i * (steps - 1) / (MOVES - 1)) for i in range(MOVES)}


def _gains(trainer: Trainer, place: int, trial: Trial, factor: float) -> Tensors | None:
    """Return the rule's gain for each weight of the network at a place in the stack.

    Returns None if the optimizer is not a rule, or if `settles_below` is undefined for it.
    """
    if not isinstance(trial.rule, Rule) or settles_below(trial.rule, tuple(sorted(trial.values.items()))) is None:
        return None
    gains = {}
    for name, state in trainer.stack.rule_state(place).items():
        x = trainer.stack.parameters[name][place]
        values = trainer.stack.hyperparameters(trial, name)
        values["lr"] *= factor
        gains[name] = gain(trial.rule, values, trainer.step, placed(state, CPU)).to(x.dtype).expand(x.shape)
    return gains if len(gains) == len(trainer.stack.parameters) else None


def _flatten_rows(stack: Tensor) -> Tensor:
    """Flatten stacked tensors, `[rows, ...]`, to `[rows, weights]` in double precision on the CPU."""
    return stack.reshape(len(stack), -1).to(CPU).double()


def _row_norms(stacks: Iterable[Tensor]) -> Tensor:
    """Return the norm of each network, `[rows]`, over all of its tensors.

    Args:
        stacks: tensors of the networks, each stacked as `[rows, ...]`.
    """
    return torch.stack([_flatten_rows(x).square().sum(1) for x in stacks]).sum(0).sqrt()
