"""Gradients of a batch that is computed in micro-batches."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Gradients = tuple[Tensor, Sequence[Tensor | None]]
"""Losses, `[rows]`, and the gradient of each parameter; there are no gradients if the model's code has failed."""


def accumulate_gradients(index: Tensor, size: int, compute: Callable[[Tensor], Gradients]) -> Gradients:
    """Return the mean losses and gradients of micro-batches, weighted by their numbers of examples.

    Args:
        index: indices of the batch, `[seeds, batch]`.
        size: maximum number of examples of a micro-batch.
        compute: returns the losses and gradients for the indices of a micro-batch.
    """
    parts = torch.split(index, size, dim=1)
    if len(parts) == 1:
        return compute(index)
    loss_sum: Tensor | float = 0.0
    sums: list[Tensor | None] = []
    for number, part in enumerate(parts):
        share = part.shape[1] / index.shape[1]
        losses, gradients = compute(part)
        loss_sum = loss_sum + losses * share
        if not gradients:
            return losses, []
        scaled = [None if g is None else g * share for g in gradients]
        sums = [_add(total, g) for total, g in zip(sums, scaled, strict=True)] if number else scaled
    assert isinstance(loss_sum, Tensor)
    return loss_sum, sums


def _add(total: Tensor | None, g: Tensor | None) -> Tensor | None:
    """Add a gradient to a sum in place; None counts as zero."""
    return total if g is None else g if total is None else total.add_(g)
