"""The functions a rule may call, on Python numbers and on tensors alike, keeping the tensor's dtype.

Imported without torch: a tensor brings its own methods, so listing rules costs nothing.
"""

import math
from typing import Any

Value = Any  # a Python number or a torch.Tensor; every function returns the same kind


def is_number(value: Value) -> bool:
    """Whether a value is a Python number rather than a tensor."""
    return isinstance(value, int | float)


def sqrt(a: Value) -> Value:
    """The square root."""
    return math.sqrt(a) if is_number(a) else a.sqrt()


def sign(a: Value) -> Value:
    """-1, 0 or 1."""
    return (a > 0) - (a < 0) if is_number(a) else a.sign()


def maximum(a: Value, b: Value) -> Value:
    """The larger of two, element by element; not-a-number wins."""
    if is_number(a):
        return max(a, b) if is_number(b) else b.clamp(min=a)
    return a.clamp(min=b) if is_number(b) else a.maximum(b)


def minimum(a: Value, b: Value) -> Value:
    """The smaller of two, element by element; not-a-number wins."""
    if is_number(a):
        return min(a, b) if is_number(b) else b.clamp(max=a)
    return a.clamp(max=b) if is_number(b) else a.minimum(b)


def clip(a: Value, low: Value, high: Value) -> Value:
    """`a` held between `low` and `high`."""
    return minimum(maximum(a, low), high)


def where(condition: Value, a: Value, b: Value) -> Value:
    """`a` where the condition holds (a number holds when it is not zero), else `b`."""
    if is_number(condition):
        return a if condition else b
    # Tensor.where wants a tensor on the left; a number on the right takes its dtype.
    return b.where(condition == 0, a) if is_number(a) else a.where(condition != 0, b)


def norm(a: Value) -> Value:
    """The Euclidean length of a whole tensor."""
    return abs(a) if is_number(a) else a.norm()


def mean(a: Value) -> Value:
    """The mean of a whole tensor."""
    return a if is_number(a) else a.mean()


def matmul(a: Value, b: Value) -> Value:
    """The product of two matrices."""
    return a @ b


def transpose(a: Value) -> Value:
    """A matrix with its rows as columns."""
    return a.mT


def rows(a: Value) -> int:
    """How many rows a matrix has: a number."""
    return int(a.shape[-2])


def columns(a: Value) -> int:
    """How many columns a matrix has: a number."""
    return int(a.shape[-1])


ELEMENTWISE = {"abs": 1, "sqrt": 1, "sign": 1, "maximum": 2, "minimum": 2, "clip": 3, "where": 3}
"""What every rule may call, with how many arguments each takes."""
# Muon scales its step by the shape, which nothing computed from the values can tell: hence `rows` and `columns`.
MATRIX = {"matmul": 2, "transpose": 1, "rows": 1, "columns": 1}
"""What a rule of tensor scope may call on a matrix."""
WHOLE = {"norm": 1, "mean": 1, **MATRIX}
"""What a rule of tensor scope may call besides."""
FUNCTIONS = {"abs": abs} | {f.__name__: f for f in (sqrt, sign, maximum, minimum, clip, where)}
FUNCTIONS |= {f.__name__: f for f in (norm, mean, matmul, transpose, rows, columns)}
