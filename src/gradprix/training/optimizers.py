"""Optimizers of a stack: a rule updates all of its rows in one call, any other optimizer updates one row at a time."""

from collections.abc import Collection, Sequence
from itertools import groupby, product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gradprix.kernels import StackedRule

from .closures import Batch
from .param_groups import group_hyperparameters
from .per_row_optimizers import DEFAULT_BUILDER, IndexGroup, PerRowOptimizers, RowBuilder
from .torch_optimizer_adapter import TorchOptimizerAdapter
from .trial import Trial


class StackedOptimizers:
    """The optimizers of all rows of a stack.

    Args:
        trials: the trial of each row; trials with equal `update_key` must be adjacent.
        params: the parameters, `[rows, ...]` each, updated in place.
        compiled: compile rules that have no kernel with `torch.compile`.
        builder: constructs the optimizers that update one row at a time; its parameter groups are those of all rows.

    Attributes:
        blocks: groups of adjacent rows: the rows, the indices of the parameters, and the optimizers that update them.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        params: Sequence[Tensor],
        compiled: bool = False,
        builder: RowBuilder = DEFAULT_BUILDER,
    ) -> None:
        rule_groups = builder.groups or [IndexGroup(range(len(params)))]
        self.blocks: list[tuple[slice, list[int], StackedRule | PerRowOptimizers]] = []
        for _, group in groupby(range(len(trials)), key=lambda row: trials[row].update_key):
            rows = list(group)
            block, optimizer = slice(rows[0], rows[-1] + 1), trials[rows[0]].rule
            if isinstance(optimizer, TorchOptimizerAdapter):
                all_params = list(range(len(params)))
                self.blocks.append((block, all_params, PerRowOptimizers(trials[block], params, block.start, builder)))
                continue
            values = [trials[row].values for row in rows]
            if optimizer.uses_group and any(len({params[k].dtype for k in g.indices}) > 1 for g in rule_groups):
                raise ValueError(
                    f"{optimizer.name} steps all tensors of a parameter group together, and a group of this model has "
                    "tensors of several dtypes: such a group cannot be stacked. Convert the model to one dtype."
                )
            for own_group, dtype in product(rule_groups, dict.fromkeys(x.dtype for x in params)):
                if chosen := [k for k in own_group.indices if params[k].dtype is dtype]:
                    own_values = [group_hyperparameters(own_group.settings, row_values) for row_values in values]
                    stacked = StackedRule(optimizer, own_values, [params[k] for k in chosen], block.start, compiled)
                    self.blocks.append((block, chosen, stacked))

    def step(
        self,
        gradients: Sequence[Tensor],
        factor: float,
        missing: Collection[tuple[int, int]] = (),
        batch: Batch | None = None,
    ) -> None:
        """Perform one optimizer step of every row, with its learning rate multiplied by `factor`.

        As in torch, a parameter without a gradient keeps its values and its state, and its steps are not counted.

        Args:
            gradients: the gradient of each parameter, `[rows, ...]`.
            factor: multiplier of the learning rates.
            missing: index of the parameter and row of each parameter that has no gradient in this step.
            batch: the current batch, for optimizers with a closure.
        """
        if missing:
            self._separate({k for k, _ in missing})
        for block, chosen, stepper in self.blocks:
            own_gradients = [gradients[k] for k in chosen]
            if isinstance(stepper, PerRowOptimizers):
                stepper.step(own_gradients, factor, missing, batch)
            elif (chosen[0], block.start) not in missing:
                stepper.step(own_gradients, factor)

    def _separate(self, indices: set[int]) -> None:
        """Update parameters that lack a gradient in some steps by rules of their own, one for each row."""
        blocks: list[tuple[slice, list[int], StackedRule | PerRowOptimizers]] = []
        for block, chosen, stepper in self.blocks:
            remaining = chosen
            if isinstance(stepper, StackedRule) and len(chosen) * (block.stop - block.start) > 1:
                for k in indices & set(chosen):
                    rules = stepper.split_off(remaining.index(k))
                    remaining = [each for each in remaining if each != k]
                    blocks += [(slice(row, row + 1), [k], rule) for row, rule in enumerate(rules, start=block.start)]
            if remaining:
                blocks.append((block, remaining, stepper))
        self.blocks = blocks

    @property
    def have_kernels(self) -> bool:
        """True if all parameters of every row are updated by compiled kernels."""
        return all(isinstance(stepper, StackedRule) and stepper.kernel is not None for _, _, stepper in self.blocks)

    def prepare_step(self, gradients: Sequence[Tensor], factor: float) -> None:
        """Prepare a step that runs row by row; see `StackedRule.prepare_step`.

        This requires `have_kernels` and a completed first step.
        """
        addresses = [x.data_ptr() for x in gradients]
        for _, chosen, stepper in self.blocks:
            if isinstance(stepper, StackedRule):
                stepper.prepare_step([addresses[k] for k in chosen], factor)

    def calls_by_row(self) -> list[NDArray[np.int64]]:
        """Return the kernel calls that update each row after `prepare_step`, `[calls, 4]`; see `run_calls`."""
        rows: list[NDArray[np.int64]] = []
        for _, blocks in groupby(self.blocks, key=lambda block: block[0].start):
            calls = [stepper.calls_by_row() for _, _, stepper in blocks if isinstance(stepper, StackedRule)]
            rows.extend(np.concatenate(calls, axis=1))
        return rows

    def select_rows(self, index: Tensor, params: Sequence[Tensor]) -> None:
        """Keep only the rows at `index`, in ascending order; their parameters are now `params`."""
        remaining, start = [], 0
        for block, chosen, stepper in self.blocks:
            block_rows = index[(index >= block.start) & (index < block.stop)] - block.start
            if len(block_rows):
                start = int((index < block.start).sum())
                new_block = slice(start, start + len(block_rows))
                stepper.select_rows(block_rows, [params[k] for k in chosen], start)
                remaining.append((new_block, chosen, stepper))
        self.blocks = remaining

    def eval(self) -> None:
        """Switch optimizers such as Schedule-Free ones to the weights at which the model is evaluated."""
        for _, _, stepper in self.blocks:
            stepper.eval()

    def train(self) -> None:
        """Switch these optimizers back to the weights that are trained."""
        for _, _, stepper in self.blocks:
            stepper.train()

    def rule_state(self, row: int) -> dict[int, dict[str, Any]]:
        """Return the optimizer state of a row by parameter index; empty if the row's optimizer is not a rule."""
        return {
            index: stepper.row_state(row - block.start, k)
            for block, chosen, stepper in self.blocks
            if isinstance(stepper, StackedRule) and block.start <= row < block.stop
            for k, index in enumerate(chosen)
        }
