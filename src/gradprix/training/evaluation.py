"""Evaluation of a stack of models: losses, outputs and metrics on validation or test examples."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from gradprix.compiler import IndexedRows
from gradprix.utils.devices import CPU, placed

from .faults import has_nan, task_error
from .model_stack import ModelStack
from .outputs import CombinedOutput, Output, combine

BATCH_FACTOR = 8
"""Evaluation batch size in training batches: evaluation stores less than training does."""
TEST_PARTS = 20
"""Number of parts of an official test set, every 20th example each, for the variance due to the test examples."""


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of each model of a stack on its own examples, on the CPU, where metrics are computed.

    Args:
        losses: mean loss of each row.
        outputs: output of each row.
        targets: targets, `IndexedRows` of the shape `[rows, examples, ...]` each.
    """

    losses: list[float]
    outputs: list[CombinedOutput]
    targets: Any


@dataclass(frozen=True)
class TestScore:
    """Test result of one model.

    Args:
        loss: the loss.
        metric: the metric.
        parts: the metric on each of several parts of an official test set, if there is one.
    """

    loss: float
    metric: float
    parts: list[float] | None


@torch.no_grad()
def compute_outputs(stack: ModelStack, index: Tensor) -> Evaluation:
    """Return losses, outputs and targets of each model for its own examples.

    Args:
        stack: the models.
        index: indices of the examples, `[seeds, examples]`.
    """
    if stack.optimizers is not None:
        stack.optimizers.eval()
    batch_size = (stack.trials[0].batch_size or index.shape[1]) * BATCH_FACTOR
    outputs, targets, losses, sizes = [], [], [], []
    failed: list[Output] = []
    for batch in torch.split(index, batch_size, dim=1):
        inputs, batch_targets = stack.data.read(batch)
        run = partial(stack.outputs, inputs, batch_targets)
        try:
            output, loss = run()
        except Exception as error:
            stack.raise_unless_diverged("its model or loss in evaluation", error, run)
            loss = torch.full((len(stack.rows),), float("nan"))
            output = failed = [Output.from_value(x) for x in loss]
        outputs.append(output)
        targets.append(batch_targets)
        sizes.append(batch.shape[1])
        losses.append(placed(loss, CPU).double() * sizes[-1])
    if stack.optimizers is not None:
        stack.optimizers.train()
    loss = torch.stack(losses).sum(0) / index.shape[1]
    rows = [[each] for each in failed] if failed else zip(*outputs, strict=True)
    combined = [combine(batches, sizes[: len(batches)]) for batches in rows]
    return Evaluation(loss.tolist(), combined, tree_map(_concatenate, *targets))


def _concatenate(*batches: IndexedRows) -> IndexedRows:
    examples = torch.cat([placed(batch.distinct, CPU) for batch in batches], dim=1)
    return IndexedRows(examples, placed(batches[0].index, CPU))


def compute_metrics(stack: ModelStack, evaluation: Evaluation, examples: slice | None = None) -> list[float]:
    """Return each model's metric, on all of the evaluated examples or a subset."""
    metrics = []
    for row, output in enumerate(evaluation.outputs):
        predictions = output.whole if examples is None else output.part(examples)
        chosen = slice(None) if examples is None else examples
        expected = tree_map(lambda x, row=row, chosen=chosen: x[row][chosen], evaluation.targets)
        try:
            metrics.append(float(stack.task.metric.score(predictions, expected)))
        except Exception as error:
            if not has_nan(output.leaves):
                raise task_error(stack.task, "its metric", [stack.trials[stack.rows[row]]], error) from error
            metrics.append(float("nan"))  # the model has diverged
    return metrics


def evaluate(stack: ModelStack, index: Tensor) -> tuple[list[float], list[float]]:
    """Return each model's loss and metric on its own examples, indices `[seeds, examples]`."""
    evaluation = compute_outputs(stack, index)
    return evaluation.losses, compute_metrics(stack, evaluation)


def evaluate_test(stack: ModelStack) -> dict[int, TestScore]:
    """Return the test result of each model by its index in `stack.trials`."""
    evaluation = compute_outputs(stack, stack.data.test)
    parts: Sequence[list[float] | None] = [None] * len(stack.rows)
    if stack.task.loaded.test is not None:
        count = min(TEST_PARTS, stack.data.test.shape[1])
        with suppress(Exception):  # some metrics are undefined on a part, for example if a class is missing
            each = [compute_metrics(stack, evaluation, slice(first, None, count)) for first in range(count)]
            parts = [list(row) for row in zip(*each, strict=True)]
    metrics = compute_metrics(stack, evaluation)
    scores = [TestScore(*score) for score in zip(evaluation.losses, metrics, parts, strict=True)]
    return dict(zip(stack.rows.tolist(), scores, strict=True))
