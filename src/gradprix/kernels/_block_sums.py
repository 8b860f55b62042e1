"""Sums of tensors in blocks, in the order of `sum_in_blocks`, by a compiled kernel where there is one."""

import ctypes
from functools import cache

import torch
from torch import Tensor

from gradprix.rules.ops import BLOCK, sum_in_blocks

from ._compile import Kernel, load_sums
from ._kernel_source import PARTS, REDUCTION_PARTS

KINDS = {torch.float32: "float32", torch.float64: "float64"}
"""Dtypes that the kernel supports."""
JOB = ctypes.c_int64 * 5
SOURCE = """
at_long = pointer_to(types.int64)
at = pointer_to(types.{kind})
at_double = pointer_to(types.float64)
scratch = doubles_on_stack(BLOCK)


@njit(error_model="numpy")
def load(terms, x):
    for i in range(x.size):
        terms[i] = np.float64(x[i])


@cfunc("void(int64)", error_model="numpy")
def kernel(job_at):
    job = carray(at_long(job_at), 5)
    x, count, size, sums, out = job[0], job[1], job[2], at_double(job[3]), at_double(job[4])
    terms = scratch()
    blocks = (size + BLOCK - 1) // BLOCK
    for n in range(count):
        for block in range(blocks):
            start = block * BLOCK
            length = min(BLOCK, size - start)
            load(terms, carray(at(x + {size} * (n * size + start)), length))
            sums[block] = sum_block(terms, 0, length)
        out[n] = sum_blocks(sums, 1, 0, 0, blocks)
"""


def block_sums(a: Tensor) -> Tensor:
    """Return the sums over the last dimension of a tensor `[n, size]` in float64, as `sum_in_blocks` does."""
    kernel = _kernel(a.dtype) if a.device.type == "cpu" and a.dtype in KINDS else None
    if kernel is None or a.numel() == 0:
        sums: Tensor = sum_in_blocks(a)
        return sums
    a = a.contiguous()
    blocks, out = a.new_empty(-(-a.shape[1] // BLOCK), dtype=torch.float64), a.new_empty(len(a), dtype=torch.float64)
    job = JOB(a.data_ptr(), *a.shape, blocks.data_ptr(), out.data_ptr())
    kernel(ctypes.addressof(job))
    return out


@cache
def _kernel(kind: torch.dtype) -> Kernel | None:
    text = SOURCE.format(kind=KINDS[kind], size=kind.itemsize)
    return load_sums("block_sums", f"{PARTS.read_text('utf-8')}\n{REDUCTION_PARTS.read_text('utf-8')}\n{text}")
