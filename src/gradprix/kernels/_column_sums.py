"""Sums over a dimension that is not the last in memory, in an order that depends only on the size of the dimension.

`torch.sum` uses one order within full vector blocks and another for the remaining columns, so the rounding of a sum
depends on the number of columns and on its position. Here all columns are summed in the same order.
"""

import ctypes
import math
from functools import cache

import torch
from torch import Tensor

from ._compile import Kernel, load_sums
from ._kernel_source import PARTS

KINDS = {torch.float32: "float32", torch.float64: "float64"}
"""Supported dtypes."""
MIN_ROWS = 16
"""Minimum number of rows of a partial sum."""
JOB = ctypes.c_int64 * 9
SOURCE = """
at = pointer_to(types.{kind})
at_long = pointer_to(types.int64)


@njit(error_model="numpy")
def add_1(into, a):
    for k in range(into.size):
        into[k] += a[k]


@njit(error_model="numpy")
def add_4(into, a, b, c, d):
    for k in range(into.size):
        into[k] += (a[k] + b[k]) + (c[k] + d[k])


@njit(error_model="numpy")
def clear(into):
    for k in range(into.size):
        into[k] = 0


@cfunc("void(int64)", error_model="numpy")
def kernel(job_at):
    job = carray(at_long(job_at), 9)
    x, batch, rows, width, batch_step, row_step = job[0], job[1], job[2], job[3], job[4], job[5]
    chunk, partial = job[6], carray(at(job[8]), width)
    for i in range(batch):
        total = carray(at(job[7] + {size} * i * width), width)
        clear(total)
        for start in range(0, rows, chunk):
            clear(partial)
            end = min(start + chunk, rows)
            row = start
            while row + 4 <= end:
                a = x + {size} * (i * batch_step + row * row_step)
                step = {size} * row_step
                add_4(
                    partial,
                    carray(at(a), width),
                    carray(at(a + step), width),
                    carray(at(a + 2 * step), width),
                    carray(at(a + 3 * step), width),
                )
                row += 4
            while row < end:
                add_1(partial, carray(at(x + {size} * (i * batch_step + row * row_step)), width))
                row += 1
            add_1(total, partial)
"""


def column_sums(x: Tensor) -> Tensor:
    """Return the sums over the second dimension of `x [batch, rows, columns]`, as `[batch, columns]`.

    Args:
        x: float32 or float64 tensor on the CPU.
    """
    batch, rows, columns = x.shape
    kernel = _kernel(x.dtype)
    if kernel is None:
        out = x.new_zeros(batch, columns)
        for row in x.unbind(1):
            out += row
        return out
    if x.stride(2) != 1:
        x = x.contiguous()
    out, partial = x.new_empty(batch, columns), x.new_empty(columns)
    sizes = batch, rows, columns, x.stride(0), x.stride(1), max(MIN_ROWS, math.isqrt(rows))
    job = JOB(x.data_ptr(), *sizes, out.data_ptr(), partial.data_ptr())
    kernel(ctypes.addressof(job))
    return out


@cache
def _kernel(kind: torch.dtype) -> Kernel | None:
    text = SOURCE.format(kind=KINDS[kind], size=kind.itemsize)
    return load_sums("column_sums", f"{PARTS.read_text('utf-8')}\n{text}")
