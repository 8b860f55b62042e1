"""Passes of a rule in operations of torch, on stacked tensors: used on devices for which there is no kernel."""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradprix.rules.ops import sum_in_blocks
from gradprix.utils.devices import placed

from ._hoisting import SplitRule, Total

Numbers = NDArray[np.float64]


class TensorPasses:
    """The passes and stages of a rule as functions of stacked tensors.

    The numbers of tensors stay on their device, so a step does not wait for it.

    Args:
        split_rule: the rule, split under its options.
        compiled: use `torch.compile` for the passes.
    """

    def __init__(self, split_rule: SplitRule, compiled: bool) -> None:
        self.split = split_rule
        passes = [split_rule.pass_on_tensors(k) for k in range(len(split_rule.passes))]
        self.passes = [torch.compile(run, dynamic=True) for run in passes] if compiled else passes
        self.stages = [split_rule.stage_on_tensors(k) for k in range(len(split_rule.stages))]

    def run(self, inputs: Sequence[Sequence[Tensor]], constants: Tensor, numbers: Tensor) -> list[list[Tensor]]:
        """Perform one step of every row.

        Args:
            inputs: parameter, gradient and element state of each tensor, `[rows, elements]`.
            constants: `[rows, constants]`, in float64.
            numbers: numbers of each tensor, `[rows, tensors, columns]`, in float64, updated in place. Constants and
                numbers are on one device: that of the tensors, or the CPU.

        Returns:
            The new parameter and element state of each tensor.
        """
        outputs: list[list[Tensor]] = []
        for k, run_pass in enumerate(self.passes):
            self._run_stage(k, constants, numbers)
            outputs = [
                list(run_pass(*tensors, *_as_columns(torch.cat([constants, numbers[:, i]], dim=1), tensors[0])))
                for i, tensors in enumerate(inputs)
            ]
            totals, kept = self.split.passes[k].totals, len(outputs[0]) - len(self.split.passes[k].totals)
            self._write_totals(totals, [tensors[kept:] for tensors in outputs], numbers)
        if self.stages:
            self._run_stage(len(self.passes), constants, numbers)
            for before, after in self.split.held.values():
                numbers[..., self.split.columns.index(before)] = numbers[..., self.split.columns.index(after)]
        return [tensors[:kept] for tensors in outputs]

    def _run_stage(self, k: int, constants: Tensor, numbers: Tensor) -> None:
        if not self.stages or not self.split.stages[k]:
            return
        columns = numbers.unbind(-1)
        for column, value in zip(columns, self.stages[k](*constants.T.unsqueeze(-1), *columns), strict=True):
            if value is not column:
                column.copy_(value)

    def _write_totals(self, totals: Sequence[Total], terms: Sequence[Sequence[Tensor]], numbers: Tensor) -> None:
        for i, total in enumerate(totals):
            sums = [sum_in_blocks(tensors[i]) for tensors in terms]  # [tensors][rows]
            if total.over == "group":
                sums = [reduce(Tensor.add, sums)] * len(sums)
            numbers[..., self.split.columns.index(total.name)] = torch.stack(sums, dim=1)


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


def _as_columns(numbers: Tensor, like: Tensor) -> Tensor:
    """Return numbers `[rows, columns]` as a tensor `[rows, 1]` for each column, of the dtype and device of another."""
    columns: Tensor = placed(numbers.to(like.dtype), like.device).T.unsqueeze(-1)
    return columns
