"""Training of many models as one stacked program.

A trial's numbers are bitwise independent of its stack: every trial has its own row in every tensor, a stack runs on one
thread, and its last rows are idle.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import stack_module_state
from torch.utils._pytree import tree_map

from gradprix.tasks import Task, schedule
from gradprix.tasks.lazy_dataset import Stream
from gradprix.tasks.rng import RngState, init_model, stream
from gradprix.tasks.schedules import examples_a_pass, passes
from gradprix.utils.devices import CPU, placed

from .artifacts import encode_artifacts
from .device_cache import to_device
from .execution_mode import ExecutionMode
from .faults import failed_on_nan, has_nan, task_error
from .gradient_mode import needs_gradients
from .model_stack import SequentialModels, StackedModels, quiet
from .optimizers import StackedOptimizers
from .outputs import CombinedOutput, Output, combine
from .stack_sizes import stack_size
from .trial import Outcome, Trial, form

STACKED = ExecutionMode()
NARROWEST = 2
"""Number of trials from which a stack pays off."""
WORTH = 0.25
"""Compact the stack once this share of its models has diverged; compacting copies every tensor."""
BATCHES_AT_ONCE = 8
"""Evaluation batch size in training batches: evaluation stores less than training does."""
PARTS = 20
"""Number of parts of an official test set, every 20th example each, for the variance due to the test examples."""
NAN = float("nan")


def train_stack(
    task: Task,
    trials: Sequence[Trial],
    report: Callable[[float], None] = lambda share: None,
    how: ExecutionMode = STACKED,
) -> list[Outcome]:
    """Train all trials of a stack.

    Args:
        task: the problem.
        trials: trials with equal batch size, epochs, schedule and `judged`.
        report: called from time to time with the completed share of the training.
        how: the execution mode of the race.

    Returns:
        One outcome per trial, in the given order.
    """
    order = sorted(range(len(trials)), key=lambda i: form(trials[i]))
    rows = [trials[i] for i in order]
    with quiet(how.device):
        outcomes = Trainer(task, rows, how).run(report)
    return [outcome for _, outcome in sorted(zip(order, outcomes, strict=False), key=lambda pair: pair[0])]


@contextmanager
def _without_buffers(models: Iterable[nn.Module], names: Sequence[str]) -> Iterator[None]:
    """Temporarily remove buffers from models."""
    removed = []
    for model in models:
        for name in names:
            path, _, last = name.rpartition(".")
            buffers = model.get_submodule(path)._buffers
            if last in buffers:  # a module may have several names
                removed.append((buffers, last, buffers.pop(last)))
    try:
        yield
    finally:
        for buffers, last, buffer in removed:
            buffers[last] = buffer


class Trainer:
    """A stack of models during training.

    The number of rows is one of a few sizes (`stack_size`): the last rows are idle copies of the last trial.

    Args:
        task: the problem.
        trials: trials, sorted so that those of one form are adjacent.
        how: the execution mode of the race.

    Raises:
        ValueError: if the model has no trainable parameters.
    """

    def __init__(self, task: Task, trials: Sequence[Trial], how: ExecutionMode = STACKED) -> None:
        self.count = len(trials)
        rows = [*trials, *[trials[-1]] * (stack_size(self.count) - self.count)] if how.stacked else list(trials)
        self.task, self.trials, self.budget = task, rows, rows[0]
        self.how, self.device = how, torch.device(how.device)
        self.data = to_device(task.loaded, self.device)
        self.index_device = CPU if self.data is task.loaded else self.device
        self.seeds = list(dict.fromkeys(trial.seed for trial in rows))
        splits = [task.loaded.split(seed) for seed in self.seeds]
        self.train, self.valid, self.test = (
            placed(torch.stack([getattr(split, part) for split in splits]), self.index_device)
            for part in ("train", "valid", "test")
        )
        self.orders = [stream(seed, "order") for seed in self.seeds]
        is_stream = isinstance(self.data, Stream)
        self.rng_states = [RngState(stream(seed, "examples")) for seed in self.seeds * is_stream]
        self.rows = torch.arange(len(rows))  # the trials that are still training
        self.of_seed = placed(torch.tensor([self.seeds.index(trial.seed) for trial in rows]), self.index_device)

        models = {seed: init_model(task.model, seed) for seed in self.seeds}
        model = models[self.seeds[0]]
        buffers_by_name = model.named_buffers(remove_duplicate=False)
        sparse = [name for name, x in buffers_by_name if x.layout is not torch.strided]
        if sparse and how.stacked:
            raise ValueError(f"its buffer {sparse[0]} is sparse, which torch cannot stack")
        with _without_buffers(models.values(), sparse):
            stacked, buffers = stack_module_state([models[trial.seed] for trial in rows])
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        if not trained:
            raise ValueError("the model has no parameter that can be trained")
        self.leaves = {name: placed(x.detach().clone(), self.device) for name, x in stacked.items() if name in trained}
        rest = {**{name: x.detach() for name, x in stacked.items() if name not in trained}, **buffers}
        self.rest = placed(rest, self.device)
        self.optimizers: StackedOptimizers | None = None
        row_seeds = [trial.seed for trial in rows]
        self.network = (
            StackedModels(task, row_seeds, how.compiled)
            if how.stacked
            else SequentialModels(task, row_seeds, self.device, models)
        )
        self.diverged: list[int | None] = [None] * len(rows)
        self.initial_losses = [NAN] * len(rows)

    def run(self, report: Callable[[float], None]) -> list[Outcome]:
        """Train to the end and return one outcome per trial."""
        examples, epochs = self.train.shape[1], passes(self.budget.epochs)
        count = examples_a_pass(examples, self.budget.epochs)
        batch = self.budget.batch_size or count
        starts = range(0, count, batch)
        sizes = torch.tensor([min(batch, count - start) for start in starts], dtype=torch.float64)
        factor = schedule(self.budget.schedule, epochs * len(starts))
        curves: list[list[tuple[int, float, float, float]]] = [[] for _ in self.trials]
        for epoch in range(epochs):
            order = torch.stack([torch.randperm(examples, generator=generator) for generator in self.orders])
            shuffled = self.train.gather(1, placed(order[:, :count], self.index_device))
            losses = []
            for i, start in enumerate(starts):
                losses.append(self.step(shuffled[:, start : start + batch], factor(epoch * len(starts) + i)))
                if i % 64 == 0:
                    report((epoch + i / len(starts)) / epochs)
            loss_history = placed(torch.stack(losses), CPU)  # once an epoch, so that no step waits for a GPU
            self._record_divergence(loss_history, epoch * len(starts))
            if epoch == 0:
                self.initial_losses = loss_history[0].tolist()
            mean = (loss_history.double().T @ (sizes / count)).tolist()
            points = dict(zip(self.rows.tolist(), zip(mean, *self.evaluate(self.valid), strict=True), strict=True))
            for row, curve in enumerate(curves):
                point = (NAN, NAN, NAN) if self.diverged[row] is not None else points[row]
                curve.append((count * (epoch + 1), *point))
            self._compact()
        for row, curve in enumerate(curves):
            if self.diverged[row] is None and not (math.isfinite(curve[-1][2]) and math.isfinite(curve[-1][3])):
                self.diverged[row] = epochs * len(starts)  # diverged in the last step
        return self._outcomes(curves, epochs * len(starts))

    def step(self, index: Tensor, factor: float) -> Tensor:
        """Step every model once on its batch, indices `[seeds, batch]`; return the losses before it, `[rows]`."""
        batch = self.batch(index)
        compute_gradients = partial(self.network.gradients, self.leaves, self.rest, *batch)
        try:
            losses, gradients = compute_gradients()
        except Exception as error:
            self._raise_unless_diverged("its model or loss", error, compute_gradients)
            return torch.full((len(self.rows),), NAN, device=self.device)
        with torch.no_grad():
            if self.optimizers is None:
                # Parameters that the loss does not use have no gradient; they are neither stepped nor decayed.
                self.leaves, idle = (
                    {n: x for (n, x), g in zip(self.leaves.items(), gradients, strict=True) if (g is None) is unused}
                    for unused in (False, True)
                )
                self.rest |= idle
                gradients = [g for g in gradients if g is not None]
                self.optimizers = StackedOptimizers(self.trials, list(self.leaves.values()), self.how.compiled)
            pairs = zip(gradients, self.leaves.values(), strict=True)
            self.move([torch.zeros_like(x) if g is None else g.contiguous() for g, x in pairs], factor)
        return losses

    def move(self, gradients: list[Tensor], factor: float) -> None:
        """Update every model's parameters by its gradients."""
        assert self.optimizers is not None
        self.optimizers.step(gradients, factor)

    def evaluate(self, part: Tensor) -> tuple[list[float], list[float]]:
        """Return each model's loss and metric on its own examples, indices `[seeds, examples]`."""
        loss, outputs, targets = self.outputs(part)
        return loss, self.scores(outputs, targets)

    def scores(self, outputs: Sequence[CombinedOutput], targets: Any, examples: slice | None = None) -> list[float]:
        """Return each model's metric, on all of the evaluated examples or a subset."""
        scores = []
        for row, output in enumerate(outputs):
            predictions = output.whole if examples is None else output.part(examples)
            expected = tree_map(lambda x, row=row: x[row, slice(None) if examples is None else examples], targets)
            try:
                scores.append(float(self.task.metric.score(predictions, expected)))
            except Exception as error:
                if not has_nan(output.leaves):
                    raise task_error(self.task, "its metric", [self.trials[self.rows[row]]], error) from error
                scores.append(NAN)  # the model has diverged
        return scores

    def _raise_unless_diverged(self, what: str, error: Exception, run: Callable[[], Any]) -> None:
        """Raise an error of the task's code, unless the stack has one model and the error is due to its divergence."""
        if self.count > 1 or not failed_on_nan((x[0] for x in self.leaves.values()), run):
            raise task_error(self.task, what, self.trials, error) from error

    @torch.no_grad()
    def outputs(self, part: Tensor) -> tuple[list[float], list[CombinedOutput], Any]:
        """Return each model's loss, output and targets for its own examples, indices `[seeds, examples]`.

        All results are on the CPU, where metrics are computed.
        """
        if self.optimizers is not None:
            self.optimizers.turn("eval")
        batch_size = (self.budget.batch_size or part.shape[1]) * BATCHES_AT_ONCE
        outputs, targets, losses, sizes = [], [], [], []
        failed: list[Output] = []
        for index in torch.split(part, batch_size, dim=1):
            inputs, batch_targets = self.batch(index)
            compute_outputs = partial(self.network.outputs, self.leaves, self.rest, inputs, batch_targets)
            try:
                output, loss = compute_outputs()
            except Exception as error:
                self._raise_unless_diverged("its model or loss in evaluation", error, compute_outputs)
                nan = torch.full((len(self.rows),), NAN)
                failed, loss = [Output.of(x) for x in nan], nan
                output = failed
            outputs.append(output)
            targets.append(placed(batch_targets, CPU))
            sizes.append(index.shape[1])
            losses.append(placed(loss, CPU).double() * sizes[-1])
        if self.optimizers is not None:
            self.optimizers.turn("train")
        loss = torch.stack(losses).sum(0) / part.shape[1]
        rows = [[each] for each in failed] if failed else zip(*outputs, strict=True)
        combined = [combine(batches, sizes[: len(batches)]) for batches in rows]
        return loss.tolist(), combined, tree_map(lambda *parts: torch.cat(parts, dim=1), *targets)

    def batch(self, index: Tensor) -> tuple[Any, Any]:
        """Return the examples of each row; rows that share a seed share one read."""
        try:
            if 2 * len(self.seeds) > len(self.rows) and not isinstance(self.data, Stream):
                inputs, targets = self.data.take(index[self.of_seed])
            else:
                inputs, targets = tree_map(itemgetter(self.of_seed), self.data.take(index, self.rng_states))
        except Exception as error:
            raise task_error(self.task, "reading its examples", self.trials, error) from error
        return placed(inputs, self.device), placed(targets, self.device)

    def _record_divergence(self, losses: Tensor, steps_before: int) -> None:
        """Record the first step, counted from 1, with a non-finite loss, for each trial."""
        is_divergent = ~losses.isfinite()
        if not is_divergent.any():
            return
        for row, first in zip(self.rows.tolist(), is_divergent.int().argmax(0).tolist(), strict=True):
            if self.diverged[row] is None and bool(is_divergent[first, (self.rows == row).nonzero()]):
                self.diverged[row] = steps_before + first + 1

    def _compact(self) -> None:
        """Remove diverged models from the stack if they are many; the new stack has one of the usual sizes."""
        rows = self.rows.tolist()
        training = [i for i, row in enumerate(rows) if row < self.count and self.diverged[row] is None]
        size = stack_size(len(training)) if self.how.stacked else len(training)
        if not training or len(rows) - size < max(1, WORTH * len(rows)):
            return
        inactive = sorted(set(range(len(rows))) - {*training}, reverse=True)  # the idle rows first
        index = torch.tensor(sorted([*training, *inactive[: size - len(training)]]))
        self.rows, self.of_seed = self.rows[index], self.of_seed[index]
        self.leaves = {name: x[index] for name, x in self.leaves.items()}
        self.rest = {name: x[index] for name, x in self.rest.items()}
        self.network.keep(index)
        if self.optimizers is not None:
            self.optimizers.keep(index, list(self.leaves.values()))

    def _outcomes(self, curves: Sequence[list[tuple[int, float, float, float]]], steps: int) -> list[Outcome]:
        tests = self._evaluate_test() if self.budget.judged else {}
        outcomes = []
        for row, (curve, diverged) in enumerate(zip(curves[: self.count], self.diverged, strict=False)):
            loss, metric, parts = tests.get(row, (None, None, None))
            if diverged is None and not all(math.isfinite(x) for x in (loss, metric) if x is not None):
                diverged = steps
            if diverged is not None and self.budget.judged:
                loss, metric, parts = float("inf"), self.task.baseline, None
            artifacts = self._compute_artifacts(row) if diverged is None and self.budget.judged else None
            outcomes.append(Outcome(curve, loss, metric, diverged, parts, artifacts, start=self.initial_losses[row]))
        return outcomes

    def _compute_artifacts(self, row: int) -> dict[str, Any] | None:
        """Return the artifacts that the task computes from a trained model, with the row's weights."""
        if self.task.after is None:
            return None
        trial, place = self.trials[row], int((self.rows == row).nonzero()[0])
        model = init_model(self.task.model, trial.seed)
        with torch.no_grad():
            for named_tensors in (model.named_parameters, model.named_buffers):
                for name, x in named_tensors():
                    if x.layout is torch.strided:
                        x.copy_((self.leaves | self.rest)[name][place])
        data = self.task.loaded
        rng_states = [RngState(stream(trial.seed, "examples after"))]
        examples = tree_map(itemgetter(0), data.take(data.split(trial.seed).test[None], rng_states))
        try:
            with RngState(stream(trial.seed, "after")), torch.set_grad_enabled(needs_gradients(self.task)):
                return encode_artifacts(self.task.after(model.eval(), *examples))
        except Exception as error:
            raise task_error(self.task, "its after", [trial], error) from error

    def _evaluate_test(self) -> dict[int, tuple[float, float, list[float] | None]]:
        """Return each model's test loss and metric, and its metric on parts of an official test set."""
        loss, outputs, targets = self.outputs(self.test)
        parts: list[Any] = [None] * len(self.rows)
        if self.data.test is not None:
            pieces = min(PARTS, self.test.shape[1])
            with suppress(Exception):  # some metrics are undefined on a part, for example if a class is missing
                each = [self.scores(outputs, targets, slice(first, None, pieces)) for first in range(pieces)]
                parts = [list(row) for row in zip(*each, strict=True)]
        return dict(zip(self.rows.tolist(), zip(loss, self.scores(outputs, targets), parts, strict=True), strict=True))
