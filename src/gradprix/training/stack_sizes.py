"""Stack sizes: few enough that preflight can check each of them."""

MIN_STACK = 2
"""Number of trials from which a stack pays off."""


def capacity(count: int) -> int:
    """Return the number of models that a stack for `count` models can hold: `count`, rounded up to three binary digits.

    At most a quarter of a stack is idle.
    """
    step: int = 2 ** max(0, (count - 1).bit_length() - 3)
    return -(-count // step) * step


def stack_size(count: int) -> int:
    """Return the number of rows of a stack for `count` models.

    At least one row, a copy of the last model, is idle: torch uses other instructions for the tail of a vectorized
    loop, and for a stack of one, which may round differently.
    """
    return capacity(count) + 1


def capacities(width: int) -> list[int]:
    """Return the capacities of stacks of at most `width` models, smallest first."""
    return [count for count in range(1, width + 1) if capacity(count) == count]
