"""Gradients of a batch that is computed in micro-batches."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

MicroBatch = tuple[float, Any, Any]
"""Share of the examples of a batch, their inputs and their targets."""
Gradients = tuple[Tensor, Sequence[Tensor | None]]
"""Losses, `[rows]`, and the gradient of each parameter; there are no gradients if the model's code has failed."""


def accumulate_gradients(batches: Iterable[MicroBatch], compute: Callable[[Any, Any], Gradients]) -> Gradients:
    """Return the mean losses and gradients of micro-batches, weighted by their numbers of examples.

    Args:
        batches: the micro-batches of a batch.
        compute: returns the losses and gradients for the inputs and targets of a micro-batch.
    """
    loss_sum: Tensor | None = None
    sums: list[Tensor | None] = []
    for share, inputs, targets in batches:
        losses, gradients = compute(inputs, targets)
        if share == 1.0:
            return losses, gradients
        losses = losses * share if loss_sum is None else loss_sum + losses * share
        if not gradients:
            return losses, []
        scaled = [None if g is None else g * share for g in gradients]
        sums = scaled if loss_sum is None else [_add(total, g) for total, g in zip(sums, scaled, strict=True)]
        loss_sum = losses
    assert loss_sum is not None
    return loss_sum, sums


def _add(total: Tensor | None, g: Tensor | None) -> Tensor | None:
    """Add a gradient to a sum in place; None counts as zero."""
    return total if g is None else g if total is None else total.add_(g)
