"""Compaction of a stack: removal of diverged models once there are enough of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .stack_sizes import stack_size

MIN_SHARE = 0.25
"""Minimum fraction of a stack's rows that a compaction must remove, since it copies every tensor."""


def choose_rows(active: Sequence[int], rows: int, stacked: bool) -> Tensor | None:
    """Return the rows that a compacted stack keeps.

    Args:
        active: the rows whose models have not diverged.
        rows: number of rows of the stack.
        stacked: True if the stack runs as one program. It then has one of a few sizes (see `stack_size`) and idle rows.

    Returns:
        The indices of the rows in ascending order, or None if too few rows, or all models, have diverged.
    """
    size = stack_size(len(active)) if stacked else len(active)
    if not active or rows - size < max(1, MIN_SHARE * rows):
        return None
    inactive = sorted(set(range(rows)) - {*active}, reverse=True)  # the idle rows first
    return torch.tensor(sorted([*active, *inactive[: size - len(active)]]))
