"""Training step of a stack row by row: the optimizer uses a row's gradients while they are in the processor's cache."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_leaves

from gradprix.compiler import IndexedRows, RowCall
from gradprix.kernels import run_calls

from .gradient_clipping import GradientClipper
from .optimizers import StackedOptimizers
from .stacked_models import StackedModels

Tensors = Mapping[str, Tensor]


class RowStep:
    """A training step of a stack, prepared for batches of one shape, that computes gradients and updates row by row.

    Args:
        models: the models.
        optimizers: the models' optimizers; all have kernels and have performed a first step.
        parameters: the trained parameters.
        buffers: the models' other tensors.
        call: the computation of the gradients, see `StackedModels.row_call`.
        clipping: the clipping of the gradients; None does not clip. See `GradientClipper.row_call`.
        active: number of rows that are trained. These are the first rows; the remaining rows are idle.
    """

    def __init__(
        self,
        models: StackedModels,
        optimizers: StackedOptimizers,
        parameters: Tensors,
        buffers: Tensors,
        call: RowCall,
        clipping: RowCall | None,
        active: int,
    ) -> None:
        self.models, self.optimizers, self.call = models, optimizers, call
        self._clipping = clipping  # keeps its memory alive
        self._tensors = [*parameters.values(), *buffers.values()]
        losses, *gradients = [x for x in call.results if x is not None]
        self._gradients = gradients if clipping is None else [x for x in clipping.results if x is not None]
        self._losses = losses.zero_()  # idle rows keep the zero
        programs = [call] if clipping is None else [call, clipping]
        calls = []
        for row, updates in enumerate(optimizers.calls_by_row()[:active]):
            passes = [[each.kernel_address, each.job.address, row, row + 1] for each in programs]
            calls += [np.array(passes, dtype=np.int64), updates]
        self._calls = np.concatenate(calls)

    @property
    def is_reusable(self) -> bool:
        """True if the step may run again with another batch.

        This requires that the step uses the stack's own tensors instead of copies, and does not change its batch.
        """
        examples_and_draws = self.call.function.changed[len(self._tensors) :]
        return not any(examples_and_draws) and all(x.is_contiguous() for x in self._tensors)

    def uses(self, parameters: Tensors, buffers: Tensors) -> bool:
        """Return True if these are the tensors that the step was prepared for."""
        now = *parameters.values(), *buffers.values()
        return len(now) == len(self._tensors) and all(x is y for x, y in zip(now, self._tensors, strict=True))

    def replace_batch(self, batch: tuple[Any, Any]) -> None:
        """Load the next batch and draw new random numbers for it."""
        examples: list[IndexedRows] = [x for part in batch for x in leaves(part)]
        self.call.replace_last([*examples, *self.models.draw(self.call.function)])

    def run(self, factor: float) -> Tensor:
        """Perform one training step of every active row and return the losses before the step, `[rows]`.

        Args:
            factor: the schedule's multiplier of the learning rates.

        Raises:
            IndexError: if an index in the model's code was out of range.
        """
        self.optimizers.prepare_step(self._gradients, factor)
        run_calls(self._calls)
        self.call.finish()
        return self._losses.clone()


def prepare_row_step(
    models: StackedModels,
    optimizers: StackedOptimizers,
    clipper: GradientClipper | None,
    parameters: Tensors,
    buffers: Tensors,
    batch: tuple[Any, Any],
    active: int,
) -> RowStep | None:
    """Prepare a training step for a batch; see `RowStep` for the arguments.

    Returns:
        The step; None if the gradients, their clipping or an optimizer cannot run as machine code. Without a step, no
        random number has been drawn: the caller computes this step in another way, with the same numbers.
    """
    if not optimizers.have_kernels:
        return None
    states, step = models.noise.states(), None
    try:
        call = models.row_call(parameters, buffers, *batch)
        clipping = None
        if call is not None and clipper is not None:
            clipping = clipper.row_call([x for x in call.results[1:] if x is not None])
        if call is not None and (clipper is None or clipping is not None):
            step = RowStep(models, optimizers, parameters, buffers, call, clipping, active)
    finally:
        if step is None:
            models.noise.restore(states)
    return step


def leaves(examples: Any) -> list[Any]:
    """Return the leaves of a nested structure of inputs or targets; `IndexedRows` are leaves."""
    return [examples] if isinstance(examples, IndexedRows) else tree_leaves(examples)
