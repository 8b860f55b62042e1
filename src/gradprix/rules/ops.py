"""Functions that rules may call on Python numbers and tensors, preserving the dtype of tensors.

This module does not import torch: tensors provide their methods, and listing rules is fast.
"""

import math
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Literal

from . import matrix_ops
from .matrix_ops import MATRIX_FUNCTIONS

Value = Any  # a number or a torch.Tensor; functions of numbers return numbers, those of tensors return tensors

BLOCK = 1024
"""Number of elements of a block, whose sum is computed separately; see `sum_in_blocks`. A power of two."""
GROUP_TOTAL: ContextVar[Callable[[Value], Value]] = ContextVar("GROUP_TOTAL", default=lambda own: own)
"""Function that returns the total of a parameter group, given the total of the tensor that is stepped. By default, the
tensor is the only one of its group."""


def is_number(value: Value) -> bool:
    """Return True if a value is a number, of Python or NumPy, False if it is a tensor."""
    return isinstance(value, int | float) or type(value).__module__ == "numpy"


def sqrt(a: Value) -> Value:
    """Return the elementwise square root."""
    if not is_number(a):
        return a.sqrt()
    return math.sqrt(a) if type(a) in (int, float) else type(a)(math.sqrt(a) if a >= 0 else math.nan)


def sign(a: Value) -> Value:
    """Return the elementwise sign: -1, 0 or 1."""
    return int(a > 0) - int(a < 0) if is_number(a) else a.sign()


def maximum(a: Value, b: Value) -> Value:
    """Return the elementwise maximum; NaN propagates."""
    if is_number(a):
        return (a if a >= b or a != a else b) if is_number(b) else b.clamp(min=a)
    return a.clamp(min=b) if is_number(b) else a.maximum(b)


def minimum(a: Value, b: Value) -> Value:
    """Return the elementwise minimum; NaN propagates."""
    if is_number(a):
        return (a if a <= b or a != a else b) if is_number(b) else b.clamp(max=a)
    return a.clamp(max=b) if is_number(b) else a.minimum(b)


def clip(a: Value, low: Value, high: Value) -> Value:
    """Clip `a` to the range from `low` to `high`."""
    return minimum(maximum(a, low), high)


def where(condition: Value, a: Value, b: Value) -> Value:
    """Return `a` where the condition is true or nonzero, else `b`."""
    if is_number(condition):
        return a if condition else b
    if is_number(a) and is_number(b):  # by a condition that is computed on a device, as numbers are then
        return condition.double().fill_(a).where(condition != 0, b)
    # Tensor.where is a method of a tensor of values; the other argument may be a number, which is cast to its dtype.
    return b.where(condition == 0, a) if is_number(a) else a.where(condition != 0, b)


def total(a: Value, over: Literal["tensor", "group"] = "tensor") -> Value:
    """Return the sum of all elements, in float64.

    The elements have the dtype of the tensor, and their sum is computed as by `sum_in_blocks`. The result is a NumPy
    scalar, so division by zero gives infinity or NaN, as for tensors, instead of an error.

    Args:
        a: tensor.
        over: `"tensor"` for the sum over the tensor, `"group"` for the sum over all tensors of its parameter group, in
            the order of the group.

    Example:
        >>> import torch
        >>> float(total(torch.tensor([3.0, 4.0]) ** 2))
        25.0
    """
    from numpy import float64  # listing rules does not need it

    own = float64(a if is_number(a) else sum_in_blocks(a.flatten()).item())
    return own if over == "tensor" else GROUP_TOTAL.get()(own)


def size(a: Value, over: Literal["tensor", "group"] = "tensor") -> Value:
    """Return the number of elements of the tensor, or of all tensors of its parameter group; see `total`."""
    from numpy import float64

    own = float64(1 if is_number(a) else a.numel())
    return own if over == "tensor" else GROUP_TOTAL.get()(own)


def sum_in_blocks(a: Any) -> Any:
    """Return the sums over the last dimension of a tensor `[..., n]` in float64, in an order that depends only on n.

    The elements are divided into blocks of `BLOCK` elements, the last of which is filled with zeros. In each block, the
    second half is added to the first half elementwise, until one element is left. The sums of the blocks, filled with
    zeros to a power of two, are added in the same way. Devices, threads and other dimensions have no effect on the
    result, and all implementations of a rule use this order.
    """
    from torch.nn.functional import pad

    a = a.cpu() if a.device.type == "mps" else a  # which has no float64
    count = a.shape[-1]
    blocks = max(1, -(-count // BLOCK))
    sums = _add_halves(pad(a, (0, blocks * BLOCK - count)).view(*a.shape[:-1], blocks, BLOCK))
    return _add_halves(pad(sums, (0, (1 << (blocks - 1).bit_length()) - blocks))) + 0.0  # a sum of zeros is positive


def _add_halves(a: Any) -> Any:
    while a.shape[-1] > 1:
        first, second = a.tensor_split(2, dim=-1)
        a = first.double() + second
    return a.double().squeeze(-1)


def norm(a: Value) -> Value:
    """Return the Euclidean norm of a tensor."""
    return abs(a) if is_number(a) else a.norm()


def mean(a: Value) -> Value:
    """Return the mean of a tensor."""
    return a if is_number(a) else a.mean()


ELEMENTWISE = {"abs": 1, "sqrt": 1, "sign": 1, "maximum": 2, "minimum": 2, "clip": 3, "where": 3}
"""Names of the functions that all rules may call, with their numbers of arguments."""
REDUCTIONS = {"total": 1, "size": 1}
"""Names of the reductions, which all rules may call, with their numbers of arguments besides `over`."""
WHOLE = {"norm": 1, "mean": 1, **MATRIX_FUNCTIONS}
"""Names of all additional functions for rules with `scope="tensor"`, with their numbers of arguments."""
FUNCTIONS: dict[str, Callable[..., Value]] = {"abs": abs}
FUNCTIONS |= {f.__name__: f for f in (sqrt, sign, maximum, minimum, clip, where, total, size, norm, mean)}
FUNCTIONS |= {name: getattr(matrix_ops, name) for name in MATRIX_FUNCTIONS}
