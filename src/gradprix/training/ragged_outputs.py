"""Outputs and targets whose shapes differ between evaluation batches, as a `collate_fn` makes them.

They are combined as in `outputs.py`, with two additions: tensors that differ in their first dimension alone, such as
those of the nodes of graphs, and lists with an entry for each example are concatenated as well. A metric that uses
anything else, such as tensors that are padded to different lengths, is computed for each batch; the result is the mean,
weighted by the number of examples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from gradprix.utils.devices import CPU, placed

from .outputs import CombinedOutput, NotCombinedError, Output, WithheldOutput, combine


@dataclass(frozen=True)
class RaggedTargets:
    """Targets of the rows of a stack, whose shapes may differ between batches.

    Args:
        rows: the targets of each row.
        sizes: number of examples of each batch.
    """

    rows: list[CombinedOutput]
    sizes: list[int]

    def score(
        self, metric: Callable[[Any, Any], Any], row: int, outputs: CombinedOutput, examples: slice | None = None
    ) -> float:
        """Return the metric of a row.

        Args:
            metric: function of outputs and targets.
            row: index of the row.
            outputs: outputs of the row, from `combine_ragged`.
            examples: slice of the examples; all of them when None.
        """
        targets = self.rows[row]
        if examples is not None:
            return float(metric(outputs.part(examples), targets.part(examples)))
        try:
            return float(metric(outputs.whole, _copy(targets.whole)))
        except NotCombinedError:
            pairs = zip(outputs.batches, targets.batches, strict=True)
            scores = [float(metric(output, _copy(target))) for output, target in pairs]
            return sum(score * size for score, size in zip(scores, self.sizes, strict=True)) / sum(self.sizes)


def combine_targets(values: Sequence[Any], sizes: Sequence[int]) -> CombinedOutput:
    """Combine the targets of the batches of one row.

    Args:
        values: the targets of each batch.
        sizes: number of examples of each batch.
    """
    outputs = [Output.from_value(value).usable() for value in values]
    on_cpu = [Output(placed(output.leaves, CPU), output.build) for output in outputs]
    return replace(combine_ragged(on_cpu, sizes), batches=placed(list(values), CPU))


def combine_ragged(outputs: Sequence[Output], sizes: Sequence[int]) -> CombinedOutput:
    """Combine the outputs of the batches of one row.

    Args:
        outputs: the output of each batch.
        sizes: number of examples of each batch.
    """
    values = [output.build(output.leaves) for output in outputs]
    has_lists = all(isinstance(x, list | tuple) and len(x) == size for x, size in zip(values, sizes, strict=True))
    if len(values) > 1 and has_lists:
        return CombinedOutput([[x for value in values for x in value]], _first, sum(sizes), [False], values)
    if len({len(output.leaves) for output in outputs}) > 1:
        withheld = WithheldOutput("the number of values in the model's output differs from batch to batch.")
        return CombinedOutput([withheld], _first, sum(sizes), [False], values)
    combined = combine(outputs, sizes)
    parts_of_leaves = zip(*(output.leaves for output in outputs), strict=True)
    leaves = [
        torch.cat(parts) if isinstance(leaf, WithheldOutput) and _differ_in_length(parts) else leaf
        for leaf, parts in zip(combined.leaves, parts_of_leaves, strict=True)
    ]
    return replace(combined, leaves=leaves, batches=values)


def _differ_in_length(parts: Sequence[Any]) -> bool:
    """Return True if all parts are tensors that differ in their first dimension, and agree in all others."""
    if not all(isinstance(x, Tensor) and x.dim() > 0 for x in parts):
        return False
    return len({(x.shape[1:], x.dtype) for x in parts}) == 1 and len({len(x) for x in parts}) > 1


def _first(leaves: Sequence[Any]) -> Any:
    return leaves[0]


def _copy(targets: Any) -> Any:
    """Copy the tensors of targets, since rows with one seed share them and a metric may change them."""
    return tree_map_only(Tensor, torch.clone, targets)
