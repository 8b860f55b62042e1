"""Stack sizes. They are few, so that preflight can check each of them."""

MIN_STACK = 2
"""Minimum number of trials for which a stack is faster than training one model after the other."""


def capacity(count: int) -> int:
    """Return `count` rounded up to three significant binary digits: the number of models that a stack can hold.

    At most a quarter of a stack is idle.
    """
    step: int = 2 ** max(0, (count - 1).bit_length() - 3)
    return -(-count // step) * step


def stack_size(count: int) -> int:
    """Return the number of rows of a stack for `count` models.

    At least one row, a copy of the last model, is idle. Torch uses other instructions, which may round differently, for
    the remainder of a vectorized loop and for a stack of one row.
    """
    return capacity(count) + 1


def capacities(width: int) -> list[int]:
    """Return the capacities of stacks of at most `width` models, smallest first."""
    return [count for count in range(1, width + 1) if capacity(count) == count]
