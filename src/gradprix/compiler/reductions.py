"""Lowerings of reductions and matrix products."""

from math import prod
from typing import Any

import torch

from .builder import Builder, dtype_name
from .elementwise import arithmetic, comparison, where
from .ir import UnsupportedError, Value
from .lowering import register

aten = torch.ops.aten


@register(aten.sum.dim_IntList, aten.sum.default)
def _sum(b: Builder, x: Value, dims: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Value:
    if dtype is not None:
        x = b.convert(x, dtype_name(dtype))
    if x.dtype == "bool" and prod(x.shape) <= 2**24:  # counted exactly in float32
        x = b.convert(x, "float32")
    return b.reduce("add", x, dims or (), keepdim)


@register(aten.mean.dim, aten.mean.default)
def mean(b: Builder, x: Value, dims: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Value:
    """Return the mean over `dims`; over all dimensions when `dims` is empty or None."""
    total = b.reduce("add", x, dims or (), keepdim)
    return arithmetic("mul")(b, total, prod(total.shape) / prod(x.shape))


@register(aten.amax.default)
def _amax(b: Builder, x: Value, dims: Any = (), keepdim: bool = False) -> Value:
    return b.reduce("maximum", x, dims, keepdim)


@register(aten.amin.default)
def _amin(b: Builder, x: Value, dims: Any = (), keepdim: bool = False) -> Value:
    return b.reduce("minimum", x, dims, keepdim)


@register(aten.argmax.default)
def _argmax(b: Builder, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return _first_of(b, "maximum", x, dim, keepdim)


@register(aten.argmin.default)
def _argmin(b: Builder, x: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    return _first_of(b, "minimum", x, dim, keepdim)


def _first_of(b: Builder, op: str, x: Value, dim: int | None, keepdim: bool) -> Value:
    """Return the index of the first extreme value, or of the first NaN.

    Indices are computed in float32, which is exact up to 2^24.
    """
    if dim is None:
        flat = _first_of(b, op, b.reshaped(x, torch.Tensor.reshape, [prod(x.shape)])[0], 0, False)
        return b.reshaped(flat, torch.Tensor.reshape, [1] * len(x.shape))[0] if keepdim else flat
    if (size := x.shape[dim]) > 2**24:
        raise UnsupportedError("an index above 2^24")
    extreme = b.reduce(op, x, [dim], True)
    is_first = b.pointwise("or", "bool", comparison("eq")(b, x, extreme), comparison("ne")(b, x, x))
    place = where(b, is_first, b.convert(b.positions(x.shape, dim), "float32"), float(size))
    return b.convert(b.reduce("minimum", place, [dim], keepdim), "int64")


@register(aten.max.dim)
def _max(b: Builder, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return b.reduce("maximum", x, [dim], keepdim), _argmax(b, x, dim, keepdim)


@register(aten.min.dim)
def _min(b: Builder, x: Value, dim: int, keepdim: bool = False) -> tuple[Value, Value]:
    return b.reduce("minimum", x, [dim], keepdim), _argmin(b, x, dim, keepdim)


@register(aten.mm.default, aten.bmm.default)
def _matmul(b: Builder, x: Value, y: Value) -> Value:
    return b.matmul(x, y)


@register(aten.addmm.default, aten.baddbmm.default)
def _addmm(b: Builder, bias: Value, x: Value, y: Value, *, beta: float = 1, alpha: float = 1) -> Value:
    if beta != 1 or alpha != 1:
        raise UnsupportedError("addmm with factors")
    return arithmetic("add")(b, b.matmul(x, y), bias)


@register(aten.mv.default)
def _mv(b: Builder, x: Value, y: Value) -> Value:
    product = b.matmul(x, b.reshaped(y, torch.Tensor.unsqueeze, 1)[0])
    return b.reshaped(product, torch.Tensor.squeeze, 1)[0]
