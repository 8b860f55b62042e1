"""Exponential moving average of the weights of a stack."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from .model_stack import ModelStack


class WeightAverage:
    """Exponential moving average of the trained parameters of all models.

    It equals `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn(decay)`, updated after every step: the
    first update copies the weights, and buffers are those of the model.

    Args:
        decay: weight of the previous average in an update.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.averages: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, stack: ModelStack) -> None:
        """Include the current weights in the average."""
        if not self.averages:
            self.averages = {name: x.clone() for name, x in stack.parameters.items()}
            return
        averages, weights = list(self.averages.values()), list(stack.parameters.values())
        # Separate products and sums: a fused operation would round an element by its place in the stack.
        torch._foreach_mul_(averages, self.decay)
        torch._foreach_add_(averages, torch._foreach_mul(weights, 1 - self.decay))

    def select_rows(self, index: Tensor) -> None:
        """Keep only the rows at `index`."""
        self.averages = {name: x[index] for name, x in self.averages.items()}

    @contextlib.contextmanager
    def applied(self, stack: ModelStack) -> Iterator[None]:
        """Temporarily give the averaged weights to the models; their optimizers keep the trained ones."""
        trained, stack.parameters = stack.parameters, self.averages
        try:
            yield
        finally:
            stack.parameters = trained
