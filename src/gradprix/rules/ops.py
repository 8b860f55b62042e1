"""Functions that rules may call on Python numbers and tensors, preserving the dtype of tensors.

This module does not import torch: tensors provide their methods, and listing rules is fast.
"""

import math
from typing import Any

Value = Any  # a Python number or a torch.Tensor; functions of numbers return numbers, those of tensors return tensors


def is_number(value: Value) -> bool:
    """Return True if a value is a Python number, False if it is a tensor."""
    return isinstance(value, int | float)


def sqrt(a: Value) -> Value:
    """Return the elementwise square root."""
    return math.sqrt(a) if is_number(a) else a.sqrt()


def sign(a: Value) -> Value:
    """Return the elementwise sign: -1, 0 or 1."""
    return (a > 0) - (a < 0) if is_number(a) else a.sign()


def maximum(a: Value, b: Value) -> Value:
    """Return the elementwise maximum; NaN propagates."""
    if is_number(a):
        return max(a, b) if is_number(b) else b.clamp(min=a)
    return a.clamp(min=b) if is_number(b) else a.maximum(b)


def minimum(a: Value, b: Value) -> Value:
    """Return the elementwise minimum; NaN propagates."""
    if is_number(a):
        return min(a, b) if is_number(b) else b.clamp(max=a)
    return a.clamp(max=b) if is_number(b) else a.minimum(b)


def clip(a: Value, low: Value, high: Value) -> Value:
    """Clip `a` to the range from `low` to `high`."""
    return minimum(maximum(a, low), high)


def where(condition: Value, a: Value, b: Value) -> Value:
    """Return `a` where the condition is true or nonzero, else `b`."""
    if is_number(condition):
        return a if condition else b
    # Tensor.where is a method of a tensor of values; the other argument may be a number, which is cast to its dtype.
    return b.where(condition == 0, a) if is_number(a) else a.where(condition != 0, b)


def norm(a: Value) -> Value:
    """Return the Euclidean norm of a tensor."""
    return abs(a) if is_number(a) else a.norm()


def mean(a: Value) -> Value:
    """Return the mean of a tensor."""
    return a if is_number(a) else a.mean()


def matmul(a: Value, b: Value) -> Value:
    """Return the matrix product."""
    return a @ b


def transpose(a: Value) -> Value:
    """Return the transpose of a matrix."""
    return a.mT


def rows(a: Value) -> int:
    """Return the number of rows of a matrix."""
    return int(a.shape[-2])


def columns(a: Value) -> int:
    """Return the number of columns of a matrix."""
    return int(a.shape[-1])


ELEMENTWISE = {"abs": 1, "sqrt": 1, "sign": 1, "maximum": 2, "minimum": 2, "clip": 3, "where": 3}
"""Names of the functions that all rules may call, with their numbers of arguments."""
# `rows` and `columns` exist because Muon scales its step by the shape of the matrix.
MATRIX = {"matmul": 2, "transpose": 1, "rows": 1, "columns": 1}
"""Names of the matrix functions for rules with `scope="tensor"`, with their numbers of arguments."""
WHOLE = {"norm": 1, "mean": 1, **MATRIX}
"""Names of all additional functions for rules with `scope="tensor"`, with their numbers of arguments."""
FUNCTIONS = {"abs": abs} | {f.__name__: f for f in (sqrt, sign, maximum, minimum, clip, where)}
FUNCTIONS |= {f.__name__: f for f in (norm, mean, matmul, transpose, rows, columns)}
