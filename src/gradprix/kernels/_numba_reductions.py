"""Sums in the order of `sum_in_blocks`. The whole file is copied into the source of kernels with reductions."""

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

BLOCK = 1024


def doubles_on_stack(count):
    """Return a function that reserves memory for float64 numbers until the end of the calling function."""

    @intrinsic
    def reserve(context):
        def generate(target, builder, signature, arguments):
            return builder.alloca(ir.DoubleType(), count)

        return types.CPointer(types.float64)(), generate

    return reserve


@njit(error_model="numpy")
def add_eighths(terms, start, width):
    """Add the second half to the first three times, so that `width` of eight times as many terms are left."""
    for i in range(start, start + width):
        first = (terms[i] + terms[i + 4 * width]) + (terms[i + 2 * width] + terms[i + 6 * width])
        second = (terms[i + width] + terms[i + 5 * width]) + (terms[i + 3 * width] + terms[i + 7 * width])
        terms[i] = first + second


@njit(error_model="numpy")
def sum_block(terms, start, count):
    """Return the sum of `count` terms from `start` on, which are overwritten; up to `BLOCK` may follow."""
    half = 1
    while half < count:
        half *= 2
    for i in range(start + count, start + half):
        terms[i] = 0.0
    if half == BLOCK:  # constant widths, so that the loops are vectorized without checks
        add_eighths(terms, start, 128)
        add_eighths(terms, start, 16)
        half = 16
    while half > 1:
        half //= 2
        for i in range(start, start + half):
            terms[i] += terms[i + half]
    return terms[start]


@njit(error_model="numpy")
def sum_blocks(sums, width, column, first, stop):
    """Return the sum of a column over the blocks from `first` to `stop`; the sums are overwritten."""
    half, count = 1, stop - first
    while half < count:
        half *= 2
    half //= 2
    if half:  # the blocks that are missing to a power of two are zero
        for i in range(first, first + half):
            other = i + half
            added = sums[width * other + column] if other < stop else 0.0
            sums[width * i + column] += added
    while half > 1:
        half //= 2
        for i in range(first, first + half):
            sums[width * i + column] += sums[width * (i + half) + column]
    return sums[width * first + column] + 0.0  # a sum of zeros is positive
