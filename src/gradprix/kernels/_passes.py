"""Passes of a rule in operations of torch, on stacked tensors: used on devices for which there is no kernel."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradprix.rules.ops import sum_in_blocks
from gradprix.utils.devices import placed

from ._eager import add_in_order
from ._hoisting import SplitRule, Total

Numbers = NDArray[np.float64]


class TensorPasses:
    """The passes and stages of a rule as functions of stacked tensors.

    Args:
        split_rule: the rule, split under its options.
        compiled: use `torch.compile` for the passes.
    """

    def __init__(self, split_rule: SplitRule, compiled: bool) -> None:
        self.split = split_rule
        passes = [split_rule.pass_on_tensors(k) for k in range(len(split_rule.passes))]
        self.passes = [torch.compile(run, dynamic=True) for run in passes] if compiled else passes
        self.stages = [split_rule.stage_on_numbers(k) for k in range(len(split_rule.stages))]

    def run(self, inputs: Sequence[Sequence[Tensor]], constants: Numbers, numbers: Numbers) -> list[list[Tensor]]:
        """Perform one step of every row.

        Args:
            inputs: parameter, gradient and element state of each tensor, `[rows, elements]`.
            constants: `[rows, constants]`.
            numbers: numbers of each tensor, `[rows, tensors, columns]`, updated in place.

        Returns:
            The new parameter and element state of each tensor.
        """
        outputs: list[list[Tensor]] = []
        for k, run_pass in enumerate(self.passes):
            self._run_stage(k, constants, numbers)
            outputs = [
                list(run_pass(*tensors, *_as_columns(np.column_stack([constants, numbers[:, i]]), tensors[0])))
                for i, tensors in enumerate(inputs)
            ]
            totals, kept = self.split.passes[k].totals, len(outputs[0]) - len(self.split.passes[k].totals)
            self._write_totals(totals, [tensors[kept:] for tensors in outputs], numbers)
        if self.stages:
            self._run_stage(len(self.passes), constants, numbers)
            for before, after in self.split.held.values():
                numbers[..., self.split.columns.index(before)] = numbers[..., self.split.columns.index(after)]
        return [tensors[:kept] for tensors in outputs]

    def _run_stage(self, k: int, constants: Numbers, numbers: Numbers) -> None:
        if not self.stages or not self.split.stages[k]:
            return
        with np.errstate(all="ignore"):
            for row in range(len(numbers)):
                for tensor in range(numbers.shape[1]):
                    numbers[row, tensor] = self.stages[k](*constants[row], *numbers[row, tensor])

    def _write_totals(self, totals: Sequence[Total], terms: Sequence[Sequence[Tensor]], numbers: Numbers) -> None:
        for i, total in enumerate(totals):
            sums = [sum_in_blocks(tensors[i]).tolist() for tensors in terms]  # [tensors][rows]
            values = np.array(sums, dtype=np.float64).T
            if total.over == "group":
                values[:] = np.array([[add_in_order(list(row))] for row in values])
            numbers[..., self.split.columns.index(total.name)] = values


def number_table(split_rule: SplitRule, sizes: Sequence[int], groups: Sequence[int]) -> Numbers:
    """Return the numbers of each tensor before the first step, `[tensors, columns]`: all zero but numbers of elements.

    Args:
        split_rule: the rule, split under its options.
        sizes: number of elements of each tensor.
        groups: index of the group of each tensor.
    """
    table, lengths = np.zeros((len(sizes), len(split_rule.columns))), np.array(sizes)
    whole = np.bincount(groups, weights=lengths)[np.array(groups)]
    for name, over in split_rule.sizes:
        table[:, split_rule.columns.index(name)] = lengths if over == "tensor" else whole
    return table


def _as_columns(numbers: Numbers, like: Tensor) -> Any:
    """Return numbers `[rows, columns]` as one tensor `[rows, 1]` for each column, on the device of a tensor."""
    return placed(torch.from_numpy(numbers).to(like.dtype), like.device).T.unsqueeze(-1)
