"""Closures of optimizers that compute the gradient of a batch again within a step, such as LBFGS and SAM."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

RowGradients = tuple[Tensor, Sequence[Tensor | None]]
"""Loss of a model, a tensor without dimensions, and the gradient of each of its parameters."""


class Batch(NamedTuple):
    """The current batch of a stack.

    Args:
        losses: the losses at the current weights, `[rows]`.
        recompute: returns the loss and the gradients of a row at its current weights, given the index of the row.
    """

    losses: Tensor
    recompute: Callable[[int], RowGradients]


class Closure:
    """Closure for `optimizer.step(closure)`: computes the loss and the gradients of the batch, and returns the loss.

    The gradients at the weights before the step are known. A first call at these weights returns them, as LBFGS needs
    them; if the optimizer changes the weights before its first call, as SAM does, they are computed again.

    Args:
        params: the parameters, whose gradients are those of the current weights.
        loss: the loss at the current weights.
        recompute: returns the loss and the gradients at the weights at the time of the call.
    """

    def __init__(self, params: Sequence[nn.Parameter], loss: Tensor, recompute: Callable[[], RowGradients]) -> None:
        self.params, self.recompute = params, recompute
        gradients = [None if x.grad is None else x.grad.clone() for x in params]
        self.known: RowGradients | None = (loss, gradients)
        self.weights = [x.detach().clone() for x in params]

    def __call__(self) -> Tensor:
        """Set the gradients of the parameters and return the loss."""
        known, self.known = self.known, None
        is_known = known is not None and all(map(torch.equal, self.weights, self.params))
        self.weights = []
        with torch.enable_grad():
            loss, gradients = known if known is not None and is_known else self.recompute()
        for x, g in zip(self.params, gradients, strict=True):
            x.grad = g
        return loss
