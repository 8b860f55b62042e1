"""Training step of a stack row by row: the gradients of a row are applied while they are in the processor's cache."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_leaves

from gradprix.compiler import IndexedRows, RowCall
from gradprix.kernels import run_calls

from .optimizers import StackedOptimizers
from .stacked_models import StackedModels

Tensors = Mapping[str, Tensor]


class RowStep:
    """A step of the gradients and optimizers of a stack, prepared for batches of one shape.

    Args:
        models: the models.
        optimizers: their optimizers, which have kernels and have made a step.
        parameters: the trained parameters.
        buffers: the other tensors of the models.
        call: the computation of the gradients, see `StackedModels.row_call`.
        active: number of rows that are trained, the first ones; the others are idle.
    """

    def __init__(
        self,
        models: StackedModels,
        optimizers: StackedOptimizers,
        parameters: Tensors,
        buffers: Tensors,
        call: RowCall,
        active: int,
    ) -> None:
        self.models, self.optimizers, self.call = models, optimizers, call
        self._tensors = [*parameters.values(), *buffers.values()]
        losses, *self._gradients = [x for x in call.results if x is not None]
        self._losses = losses.zero_()  # of idle rows
        rows = np.arange(active)
        passes = np.column_stack([np.tile([call.kernel_address, call.job.address], (active, 1)), rows, rows + 1])
        updates = optimizers.calls_by_row()[:active]
        self._calls = np.ascontiguousarray(np.stack([passes, updates], axis=1).reshape(-1, 4))

    @property
    def is_reusable(self) -> bool:
        """True if the step may run again with other examples: it uses the stack's own tensors, not copies of them."""
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
        """Step every active row once, at its learning rate times `factor`; return the losses, `[rows]`.

        Raises:
            IndexError: if an index was out of range.
        """
        self.optimizers.prepare_step(self._gradients, factor)
        run_calls(self._calls)
        self.call.finish()
        return self._losses.clone()


def leaves(examples: Any) -> list[Any]:
    """Return the leaves of inputs or targets."""
    return [examples] if isinstance(examples, IndexedRows) else tree_leaves(examples)
