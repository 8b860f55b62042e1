"""How many rows a stack has: one of a few sizes, so that all of them can be checked before a race."""


def capacity(count: int) -> int:
    """Return for how many models a stack of so many is made: their number, rounded up to three binary digits.

    At most a quarter of a stack is idle.
    """
    step: int = 2 ** max(0, (count - 1).bit_length() - 3)
    return -(-count // step) * step


def stack_size(count: int) -> int:
    """Return the number of rows of a stack of so many models.

    One row more than the models at least, a copy of the last: the ends of long loops are computed by other instructions
    than the rest, and so is a stack of one, and both may round differently.
    """
    return capacity(count) + 1


def capacities(width: int) -> list[int]:
    """Return the capacities of stacks of so many models or fewer, smallest first."""
    return [count for count in range(1, width + 1) if capacity(count) == count]
