"""Evaluation points of the rows of a stack, for rules that evaluate the model at other weights than they train."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._eager import add_compensation, compute_evaluation_point
from ._launch import compute_dtype

if TYPE_CHECKING:
    from ._stacked import StackedRule


def evaluation_points(stacked: "StackedRule") -> list[Tensor]:
    """Compute the evaluation point of each parameter, for the rows that a rule updates.

    Each row is computed separately, with the operations of an optimizer of its own, so that it equals one.

    Args:
        stacked: rule that has performed a step.

    Returns:
        One tensor per parameter, `[rows, ...]`, in the dtype of the parameter.
    """
    points = []
    for k, x in enumerate(stacked.params):
        each = []
        for row, h in enumerate(stacked.rows):
            full = x[stacked.first + row].to(compute_dtype(x.dtype))
            if (low := stacked.compensation(row, k)) is not None:
                full = add_compensation(full, low.to(full.dtype), x.dtype)
            point = compute_evaluation_point(stacked.rule, vars(h), stacked.t, full, stacked.row_state(row, k))
            each.append(point.reshape(full.shape).to(x.dtype))
        points.append(torch.stack(each))
    return points
