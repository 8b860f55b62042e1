"""Training of many models as one stack."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gradprix.tasks import Task, schedule
from gradprix.tasks.schedules import examples_a_pass, passes
from gradprix.utils.devices import CPU, placed

from .artifacts import compute_artifacts
from .callbacks import Callback, Progress, observes_gradients
from .compaction import choose_rows
from .evaluation import TestScore, evaluate, evaluate_test
from .execution_mode import STACKED, ExecutionMode
from .live_curves import LiveCurves
from .model_stack import ModelStack
from .runtime_settings import runtime_settings
from .trial import Outcome, Trial
from .weight_average import WeightAverage

NAN = float("nan")


class Trainer:
    """Trains the models of several trials as one stack.

    A trial's numbers are bitwise independent of its stack: every trial has its own row in every tensor, a stack runs on
    one thread, and its last rows are idle.

    Args:
        task: the task.
        trials: trials with equal `stack_key`.
        mode: the execution mode of the race.
        callbacks: observe the training; they must not change the models.

    Attributes:
        stack: the models, with trials that run the same update code adjacent.
        order: for each row of the stack, the index of its trial in `trials`.
        step: number of the current step, from 1.
        steps_per_epoch: number of steps of an epoch.
        total_steps: number of steps of the whole training.
        diverged: for each row, the first step, from 1, with a non-finite loss; None if there is none.

    Raises:
        ValueError: if the trials cannot share a stack, or the model has no trainable parameters or cannot be stacked.

    Example:
        >>> from gradprix.rules import adam
        >>> from gradprix.tasks import digits
        >>> trials = [Trial(adam, adam.values(lr=lr), 0, 32, 1, "cosine", True) for lr in (0.001, 0.01)]
        >>> [round(outcome.test_metric, 2) for outcome in Trainer(digits, trials).run()]
        [0.47, 0.84]
    """

    def __init__(
        self,
        task: Task,
        trials: Sequence[Trial],
        mode: ExecutionMode = STACKED,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        if len({trial.stack_key for trial in trials}) != 1:
            raise ValueError("the trials of a stack must have the same batch size, epochs, schedule and evaluation.")
        self.order = sorted(range(len(trials)), key=lambda i: trials[i].update_key)
        with runtime_settings(mode.device):
            self.stack = ModelStack(task, [trials[i] for i in self.order], mode)
        self.task, self.callbacks = task, callbacks
        epochs = trials[0].epochs
        self.epochs, self.evaluates_test = passes(epochs), trials[0].evaluates_test
        self.examples = examples_a_pass(self.stack.data.train.shape[1], epochs)
        self.batch_size = trials[0].batch_size or self.examples
        self.steps_per_epoch = math.ceil(self.examples / self.batch_size)
        self.average = WeightAverage(task.ema) if task.ema is not None and self.evaluates_test else None
        self.step, self.total_steps = 0, self.epochs * self.steps_per_epoch
        self.schedule = schedule(trials[0].schedule, self.total_steps)
        rows = len(self.stack.trials)
        self.diverged: list[int | None] = [None] * rows
        self.initial_losses = [NAN] * rows
        self.curves: list[list[tuple[int, float, float, float]]] = [[] for _ in trials]

    def run(self) -> list[Outcome]:
        """Train to the end and return one outcome per trial, in the given order."""
        with runtime_settings(self.stack.mode.device):
            for _ in range(self.epochs):
                losses = self._train_epoch()
                self._record_divergence(losses)
                self._record_epoch(losses)
                for callback in self.callbacks:
                    callback.on_epoch_end(self)
                self._compact()
            outcomes = self._outcomes()
        return [outcome for _, outcome in sorted(zip(self.order, outcomes, strict=True), key=lambda pair: pair[0])]

    def _train_epoch(self) -> Tensor:
        """Train for an epoch and return the losses, `[steps, rows]`."""
        losses = []
        observers = [callback for callback in self.callbacks if observes_gradients(callback)]
        for index in self.stack.data.shuffled_batches(self.batch_size, self.examples):
            factor = self.schedule(self.step)
            self.step += 1
            if observers:
                batch_losses, gradients = self.stack.compute_gradients(index)
                if gradients is not None:
                    for callback in observers:
                        callback.on_before_optimizer_step(self, gradients, factor)
                    self.stack.apply_gradients(gradients, factor)
            else:
                batch_losses = self.stack.step(index, factor)
            if self.average is not None:
                self.average.update(self.stack)
            for callback in self.callbacks:
                callback.on_step_end(self, batch_losses)
            losses.append(batch_losses)
        history: Tensor = placed(torch.stack(losses), CPU)  # once an epoch, so that no step waits for a GPU
        return history

    def _record_divergence(self, losses: Tensor) -> None:
        """Record for each row the first step of the epoch with a non-finite loss."""
        is_divergent = ~losses.isfinite()
        first_steps = self.step - len(losses) + is_divergent.int().argmax(0) + 1
        for row, any_divergent, first in zip(
            self.stack.rows.tolist(), is_divergent.any(0).tolist(), first_steps.tolist(), strict=True
        ):
            if any_divergent and self.diverged[row] is None:
                self.diverged[row] = first

    def _record_epoch(self, losses: Tensor) -> None:
        """Append an epoch's mean training loss, validation loss and metric to the curves."""
        if self.step == self.steps_per_epoch:
            self.initial_losses = losses[0].tolist()
        starts = range(0, self.examples, self.batch_size)
        sizes = torch.tensor([min(self.batch_size, self.examples - start) for start in starts], dtype=torch.float64)
        mean_losses = (losses.double().T @ (sizes / self.examples)).tolist()
        points = zip(mean_losses, *evaluate(self.stack, self.stack.data.valid), strict=True)
        by_row = dict(zip(self.stack.rows.tolist(), points, strict=True))
        examples_seen = self.examples * self.step // self.steps_per_epoch
        for row, curve in enumerate(self.curves):
            curve.append((examples_seen, *(by_row[row] if self.diverged[row] is None else (NAN, NAN, NAN))))

    def _compact(self) -> None:
        """Remove diverged models from the stack if their number is large enough."""
        rows = self.stack.rows.tolist()
        active = [i for i, row in enumerate(rows) if row < self.stack.count and self.diverged[row] is None]
        if (index := choose_rows(active, len(rows), self.stack.mode.stacked)) is not None:
            self.stack.select_rows(index)
            if self.average is not None:
                self.average.select_rows(index)

    def _outcomes(self) -> list[Outcome]:
        """Evaluate the trained models and return the outcome of each row."""
        for row, curve in enumerate(self.curves):
            if self.diverged[row] is None and not (math.isfinite(curve[-1][2]) and math.isfinite(curve[-1][3])):
                self.diverged[row] = self.total_steps  # diverged in the last step
        scores = evaluate_test(self.stack) if self.evaluates_test else {}
        averaged = self._evaluate_average()
        return [self._outcome(row, scores.get(row), averaged.get(row, {})) for row in range(self.stack.count)]

    def _evaluate_average(self) -> dict[int, dict[str, float]]:
        """Return the test metric of the averaged weights by row, by its name; empty without an average."""
        if self.average is None:
            return {}
        with self.average.applied(self.stack):
            _, metrics = evaluate(self.stack, self.stack.data.test)
        name = f"{self.task.metric.name} (EMA)"
        return {row: {name: metric} for row, metric in zip(self.stack.rows.tolist(), metrics, strict=True)}

    def _outcome(self, row: int, score: TestScore | None, averaged: Mapping[str, float]) -> Outcome:
        curve, diverged, start = self.curves[row], self.diverged[row], self.initial_losses[row]
        if score is not None and not (math.isfinite(score.loss) and math.isfinite(score.metric)):
            diverged = diverged or self.total_steps
        count = self.total_steps + self.stack.extra_gradients[row]
        if not self.evaluates_test:
            return Outcome(curve, None, None, diverged, start=start, gradients=count)
        if diverged is not None or score is None:
            return Outcome(curve, math.inf, self.task.baseline, diverged, start=start, gradients=count)
        artifacts = compute_artifacts(self.stack, row, averaged)
        return Outcome(curve, score.loss, score.metric, None, score.parts, artifacts, start=start, gradients=count)


def train_stack(
    task: Task,
    trials: Sequence[Trial],
    report: Callable[[float], None] = lambda share: None,
    mode: ExecutionMode = STACKED,
    live: Path | None = None,
) -> list[Outcome]:
    """Train trials as one stack and return one outcome per trial, in the given order.

    Args:
        task: the task.
        trials: trials with equal `stack_key`.
        report: called from time to time with the completed fraction of the training, between 0 and 1.
        mode: the execution mode of the race.
        live: file for the learning curves during the training; None writes none.
    """
    curves = [] if live is None else [LiveCurves(live, trials)]
    return Trainer(task, trials, mode, [Progress(report), *curves]).run()
