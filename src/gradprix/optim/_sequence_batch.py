"""Batches of parameters whose rule has reductions or shared state: several kernels step them, one after the other."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradprix.kernels import KernelSequence, SequenceCall

from ._batch import Values
from ._eager_step import shared_state
from ._kernel_batch import KernelBatch


class SequenceBatch(KernelBatch):
    """Parameters with the same rule, options and dtype, which the kernels of a rule with reductions step together.

    If the rule uses the group, all parameters of a group that have gradients must be in one batch.

    Args:
        groups: parameter groups, which hold shared state.
        kernel: kernels compiled from `split_rule` for the dtype.
        *args: arguments of `Batch`.
    """

    kernel_call: SequenceCall

    def __init__(self, groups: Sequence[dict[str, Any]], kernel: KernelSequence, *args: Any) -> None:
        self.groups = groups
        super().__init__(kernel, *args)

    def _make_call(self, sizes: list[int], pointers: Any, constants: Any, groups: list[int]) -> SequenceCall:
        own, index = np.unique(groups, return_inverse=True)  # the parameters of a group are adjacent, in order
        call = SequenceCall(self.split, sizes, self.scalars.row_indices, pointers, constants, index.tolist())
        self.slices = {int(n): slice(*call.first_tensors[i : i + 2].tolist()) for i, n in enumerate(own)}
        return call

    def step(self, values: Sequence[Values]) -> None:
        numbers = self.kernel_call.numbers
        place = {name: self.split.columns.index(column) for name, (column, _) in self.split.held.items()}
        for name, column in self.scalars.held.items():
            numbers[:, place[name]] = column.known
        for group, tensors in self.slices.items():
            for name, value in shared_state(self.rule, values[group], self.groups[group]).items():
                numbers[tensors, place[name]] = value
        super().step(values)
        for name, column in self.scalars.held.items():
            column.write(numbers[:, place[name]].tolist())
        for group, tensors in self.slices.items():
            for name in place.keys() - self.scalars.held.keys():
                self.groups[group][self.rule.state[name].key] = float(numbers[tensors.start, place[name]])
