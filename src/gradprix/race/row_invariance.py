"""Test of bitwise row invariance: the numbers of a model must not depend on its row or on the width of the stack."""

import math
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from gradprix.tasks import Task
from gradprix.training import MIN_STACK, ModelStack, Trial, capacities
from gradprix.training.evaluation import BATCH_FACTOR

REVIEWED_WIDTHS = (2, 7)
"""Stack widths that are tested if all operations of the model are known to be row-invariant."""
MAX_UNREVIEWED_WIDTH = 32
"""Maximum width of a stack if any operation of the model is not known to be row-invariant."""
TEST_SECONDS = 20.0
"""Approximate time limit in seconds for testing all widths up to `MAX_UNREVIEWED_WIDTH`."""


def widest_invariant(task: Task, trial: Trial, fits: Callable[[int], bool]) -> float:
    """Return the largest stack width with bitwise row invariance.

    Args:
        task: task to train on.
        trial: trial to train in every row.
        fits: function that returns True if a stack of a given width fits into memory.

    Returns:
        The largest width; infinity if the width is not limited, 0 if no width is row-invariant.
    """
    narrowest = REVIEWED_WIDTHS[0]
    stack = ModelStack(task, [trial] * narrowest)
    size = task.micro_batch(trial.batch_size or stack.data.train.shape[1])
    # The batches have the sizes of the race, since a step is compiled for each size.
    batches = {"train": stack.data.train[:, :size], "score": stack.data.valid[:, : size * BATCH_FACTOR]}
    if not any(stack.traced_step(kind, *stack.data.read(index)).unreviewed for kind, index in batches.items()):
        return math.inf if is_row_invariant(task, trial, REVIEWED_WIDTHS) else 0
    started_at, widest = time.perf_counter(), 0
    for width in capacities(MAX_UNREVIEWED_WIDTH):
        if not is_row_invariant(task, trial, dict.fromkeys((narrowest, width))):
            return 0
        widest = width
        if width >= MIN_STACK and (time.perf_counter() - started_at > TEST_SECONDS or not fits(2 * width + 1)):
            break
    return widest


def is_row_invariant(task: Task, trial: Trial, widths: Iterable[int]) -> bool:
    """Return True if stacks of copies of one model are bitwise row-invariant at the given widths."""
    reference: list[Tensor] = []
    for width in widths:
        results = stack_results(task, trial, width)
        reference = reference or [x[0] for x in results]
        pairs = zip(results, reference, strict=True)
        if not all(torch.equal(x[row], own) or own.isnan().any() for x, own in pairs for row in range(width)):
            return False
    return True


def stack_results(task: Task, trial: Trial, width: int) -> list[Tensor]:
    """Compute losses, gradients, evaluation losses and buffers of a stack of copies of one model.

    Batches of every size that occurs in the race are used, including smaller last batches.
    """
    stack = ModelStack(task, [trial] * width)
    count, valid = stack.data.train.shape[1], stack.data.valid.shape[1]
    batch = trial.batch_size or count
    many = task.micro_batch(batch) * BATCH_FACTOR
    results = []
    for size in dict.fromkeys(map(task.micro_batch, (batch, count % batch or batch))):
        losses, gradients = stack.gradients(*stack.data.read(stack.data.train[:, :size]))
        results += [losses, *(g for g in gradients if g is not None)]
    for size in dict.fromkeys((min(many, valid), valid % many or many)):
        results += stack.outputs(*stack.data.read(stack.data.valid[:, :size]))[1:]
    return [*results, *stack.buffers.values()]
