"""Evaluation of a stack of models: losses, outputs and metrics on validation or test examples."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from gradprix.compiler import IndexedRows
from gradprix.utils.devices import CPU, placed

from .faults import has_nan, task_error
from .model_stack import ModelStack
from .outputs import CombinedOutput, Output, combine
from .ragged_outputs import RaggedTargets, combine_ragged, combine_targets

BATCH_FACTOR = 8
"""Evaluation batch size divided by the size of a training batch, or of a micro-batch; evaluation needs less memory per
example than training."""
TEST_PARTS = 20
"""Number of parts into which an official test set is split (every 20th example) to estimate the variance due to the
choice of test examples."""


@dataclass(frozen=True)
class Evaluation:
    """Losses, outputs and targets of all models of a stack, on the CPU, where metrics are computed.

    Args:
        losses: mean loss of each row.
        outputs: output of each row.
        targets: `IndexedRows` of shape `[rows, examples, ...]`, or a nested structure of them; `RaggedTargets` if a
            `collate_fn` makes the batches.
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
        parts: the metric on each of `TEST_PARTS` parts of an official test set; None if there is no such set or the
            metric is undefined on a part.
    """

    loss: float
    metric: float
    parts: list[float] | None


@contextmanager
def at_evaluation_point(stack: ModelStack) -> Iterator[None]:
    """Temporarily set the parameters to the point at which their optimizers evaluate the models."""
    if stack.optimizers is None:
        yield
        return
    stack.optimizers.eval()
    try:
        yield
    finally:
        stack.optimizers.train()


@torch.no_grad()
def compute_outputs(stack: ModelStack, index: Tensor) -> Evaluation:
    """Evaluate each model on the examples of its seed.

    Args:
        stack: the models.
        index: indices of the examples for each distinct seed, `[seeds, examples]`.

    Returns:
        The losses, outputs and targets. The loss of a single model whose code fails because it has diverged is NaN.

    Raises:
        TaskError: if the task's model or loss fails for another reason.
    """
    batch_size = stack.task.micro_batch(stack.trials[0].batch_size or index.shape[1]) * BATCH_FACTOR
    outputs, targets, losses, sizes = [], [], [], []
    failed: list[Output] = []
    with at_evaluation_point(stack), stack.evaluation_streams():
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
    loss = torch.stack(losses).sum(0) / index.shape[1]
    rows = [[each] for each in failed] if failed else zip(*outputs, strict=True)
    join = combine_ragged if stack.data.data.is_collated else combine
    combined = [join(batches, sizes[: len(batches)]) for batches in rows]
    joined = _join_collated(stack, targets, sizes) if stack.data.data.is_collated else tree_map(_concatenate, *targets)
    return Evaluation(loss.tolist(), combined, joined)


def _join_collated(stack: ModelStack, batches: Sequence[Any], sizes: list[int]) -> RaggedTargets:
    """Combine the targets of batches that a `collate_fn` makes; rows with one seed share them."""
    seeds = stack.data.seed_index.tolist()
    by_seed = {
        seed: combine_targets([tree_map(itemgetter(seeds.index(seed)), batch) for batch in batches], sizes)
        for seed in dict.fromkeys(seeds)
    }
    return RaggedTargets([by_seed[seed] for seed in seeds], sizes)


def _concatenate(*batches: IndexedRows) -> IndexedRows:
    examples = torch.cat([placed(batch.distinct, CPU) for batch in batches], dim=1)
    return IndexedRows(examples, placed(batches[0].index, CPU))


def compute_metrics(stack: ModelStack, evaluation: Evaluation, examples: slice | None = None) -> list[float]:
    """Return each model's metric.

    Args:
        stack: the models.
        evaluation: the models' outputs and targets.
        examples: slice of the evaluated examples; all of them when None.

    Returns:
        The metrics. The metric is NaN if it fails on an output with NaNs.

    Raises:
        TaskError: if the metric fails on another output.
    """
    metrics = []
    for row, output in enumerate(evaluation.outputs):
        try:
            metrics.append(_score(stack.task.metric.score, row, output, evaluation.targets, examples))
        except Exception as error:
            if not has_nan(output.leaves):
                raise task_error(stack.task, "its metric", [stack.trials[stack.rows[row]]], error) from error
            metrics.append(float("nan"))  # the model has diverged
    return metrics


def _score(score: Callable[[Any, Any], Any], row: int, output: CombinedOutput, targets: Any, examples: Any) -> float:
    if isinstance(targets, RaggedTargets):
        return targets.score(score, row, output, examples)
    predictions = output.whole if examples is None else output.part(examples)
    chosen = slice(None) if examples is None else examples
    return float(score(predictions, tree_map(lambda x: x[row][chosen], targets)))


def evaluate(stack: ModelStack, index: Tensor) -> tuple[list[float], list[float]]:
    """Return the losses and the metrics of all models, each evaluated on the examples of its seed.

    Args:
        stack: the models.
        index: indices of the examples for each distinct seed, `[seeds, examples]`.
    """
    evaluation = compute_outputs(stack, index)
    return evaluation.losses, compute_metrics(stack, evaluation)


def evaluate_test(stack: ModelStack) -> dict[int, TestScore]:
    """Evaluate all models on their test examples and return the results by the model's index in `stack.trials`."""
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
