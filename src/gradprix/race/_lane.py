"""Many networks trained as one stacked program.

A trial's numbers do not depend on the lane it is in, to the bit: every trial has a row of its own in every tensor, a
lane runs on one thread and is never narrower than two rows.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from gradprix.kernels import Stacked
from gradprix.tasks import Task, schedule
from gradprix.tasks._seeds import fresh, stream

from ._trial import Outcome, Trial

EVALUATED_AT_ONCE = 1024
"""Examples of each network in one evaluation call: enough to fill the machine, few enough to fit."""


def run_lane(
    task: Task, trials: Sequence[Trial], report: Callable[[float], None] = lambda share: None
) -> list[Outcome]:
    """Train every trial of a lane and say what came of it.

    Args:
        task: the problem.
        trials: alike in batch size, epochs, schedule and in whether they are judged.
        report: called now and then with the share of the lane that is done.

    Returns:
        One outcome a trial, in the order given.
    """
    order = sorted(range(len(trials)), key=lambda i: form(trials[i]))
    rows = [trials[i] for i in order]
    if len(rows) == 1:
        rows = rows * 2  # a stack of one is computed by other kernels, whose rounding differs
    with one_thread():
        outcomes = Lane(task, rows).run(report)
    return [outcome for _, outcome in sorted(zip(order, outcomes, strict=False), key=lambda pair: pair[0])]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """What every lane runs under: one thread, and no time lost on numbers too small to matter."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # vanishing second moments make a step ten times slower
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


def form(trial: Trial) -> tuple[Any, ...]:
    """Trials of one form are stepped by the same code."""
    truth = tuple(bool(value) for value in trial.values.values())
    return trial.rule.name, trial.identity["equations"], trial.identity["state"], truth


@dataclass
class _Examples:
    """Indices of the examples of each row, `[rows, examples]`."""

    train: Tensor
    valid: Tensor
    test: Tensor


class Lane:
    """A stack of networks under way.

    Args:
        task: the problem.
        rows: the trials, two or more, those of one form side by side.

    Raises:
        ValueError: when the model has nothing to train.
    """

    def __init__(self, task: Task, rows: Sequence[Trial]) -> None:
        self.task, self.rows, self.budget = task, rows, rows[0]
        self.data = task.loaded
        self.seeds = list(dict.fromkeys(trial.seed for trial in rows))
        splits = [self.data.split(seed) for seed in self.seeds]
        self.of_seed = torch.tensor([self.seeds.index(trial.seed) for trial in rows])
        self.examples = _Examples(*(torch.stack([getattr(s, part) for s in splits]) for part in vars(splits[0])))
        self.orders = [stream(seed, "order") for seed in self.seeds]

        models = {seed: fresh(task.model, seed) for seed in self.seeds}
        self.model = models[self.seeds[0]]
        stacked, self.buffers = stack_module_state([models[trial.seed] for trial in rows])
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        if not trained:
            raise ValueError("the model has no parameter that can be trained")
        self.frozen = {name: tensor.detach() for name, tensor in stacked.items() if name not in trained}
        # One matrix holds every weight, a row a network; the model sees views into it.
        columns = [stacked[name].detach().reshape(len(rows), -1) for name in sorted(trained)]
        self.weights = torch.cat(columns, dim=1)
        self.params, start = {}, 0
        for name in sorted(trained):
            shape = stacked[name].shape
            stop = start + shape[1:].numel()
            self.params[name] = self.weights[:, start:stop].view(shape).detach().requires_grad_()
            start = stop
        self.steppers = []
        for _, group in groupby(range(len(rows)), key=lambda i: form(rows[i])):
            index = list(group)
            block = slice(index[0], index[-1] + 1)
            stepper = Stacked(rows[block.start].rule, [rows[i].values for i in index], self.weights[block])
            self.steppers.append((block, stepper))
        self.train_loss = vmap(self._loss_of_one)
        self.predict = vmap(self._output_of_one)
        self.loss = vmap(task.loss)

    def _output_of_one(self, params: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor) -> Any:
        return functional_call(self.model, (params, buffers), (inputs,))

    def _loss_of_one(self, params: Any, buffers: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        return self.task.loss(self._output_of_one(params, buffers, inputs), targets)

    @property
    def state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {**self.params, **self.frozen}, self.buffers

    def run(self, report: Callable[[float], None]) -> list[Outcome]:
        count = self.examples.train.shape[1]
        batch = self.budget.batch_size or count
        starts = range(0, count, batch)
        factor = schedule(self.budget.schedule, self.budget.epochs * len(starts))
        losses, curves = [], []
        for epoch in range(self.budget.epochs):
            order = torch.stack([torch.randperm(count, generator=generator) for generator in self.orders])
            shuffled = self.examples.train.gather(1, order)
            self.model.train()
            for i, start in enumerate(starts):
                losses.append(self.step(shuffled[:, start : start + batch], factor(epoch * len(starts) + i)))
                if i % 64 == 0:
                    report((epoch + i / len(starts)) / self.budget.epochs)
            sizes = torch.tensor([min(batch, count - start) for start in starts], dtype=torch.float64)
            train = torch.stack(losses[-len(starts) :]).double().T @ (sizes / count)
            curves.append((count * (epoch + 1), train.tolist(), *self.evaluate(self.examples.valid)))
        finite = torch.stack(losses).isfinite()
        test = self.evaluate(self.examples.test) if self.budget.judged else None
        return [self.outcome(row, curves, finite[:, row], test) for row in range(len(self.rows))]

    def step(self, index: Tensor, factor: float) -> Tensor:
        """One step of every network on its own batch; returns each one's loss before it."""
        index = index[self.of_seed]
        loss = self.train_loss(*self.state, self.data.inputs[index], self.data.targets[index])
        if loss.dim() != 1:
            raise ValueError(f"the loss of a batch has the shape {tuple(loss.shape[1:])}, not one number")
        leaves = list(self.params.values())
        gradients = torch.autograd.grad(loss.sum(), leaves, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            flat = torch.cat([gradient.reshape(len(self.rows), -1) for gradient in gradients], dim=1)
            for block, stepper in self.steppers:
                stepper.step(flat[block], factor)
        return loss.detach()

    @torch.no_grad()
    def evaluate(self, part: Tensor) -> tuple[list[float], list[float]]:
        """Each network's loss and metric on its own examples."""
        self.model.eval()
        outputs, targets, losses = [], [], []
        for index in part.tensor_split(tuple(range(EVALUATED_AT_ONCE, part.shape[1], EVALUATED_AT_ONCE)), dim=1):
            index = index[self.of_seed]
            outputs.append(self.predict(*self.state, self.data.inputs[index]))
            targets.append(self.data.targets[index])
            losses.append(self.loss(outputs[-1], targets[-1]).double() * index.shape[1])
        loss = torch.stack(losses).sum(0) / part.shape[1]
        pairs = zip(torch.cat(outputs, dim=1), torch.cat(targets, dim=1), strict=True)
        return loss.tolist(), [float(self.task.metric.score(output, target)) for output, target in pairs]

    def outcome(self, row: int, curves: list[Any], finite: Tensor, test: Any) -> Outcome:
        diverged = None if bool(finite.all()) else int((~finite).int().argmax()) + 1
        if diverged is None and not math.isfinite(curves[-1][2][row]):
            diverged = len(finite)  # the last step did it
        loss, metric = (None, None) if test is None else (test[0][row], test[1][row])
        if diverged is not None and test is not None:
            loss, metric = float("inf"), self.task.baseline
        return Outcome(
            [(n, train[row], valid[row], score[row]) for n, train, valid, score in curves], loss, metric, diverged
        )
