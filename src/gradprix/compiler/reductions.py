"""Lowerings of reductions, normalizations and products."""

from collections.abc import Sequence
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
def _mean(b: Builder, x: Value, dims: Any = None, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Value:
    total = b.reduce("add", x, dims or (), keepdim)
    return arithmetic("mul")(b, total, prod(total.shape) / prod(x.shape))


@register(aten.amax.default)
def _amax(b: Builder, x: Value, dims: Any = (), keepdim: bool = False) -> Value:
    return b.reduce("maximum", x, dims, keepdim)


@register(aten.amin.default)
def _amin(b: Builder, x: Value, dims: Any = (), keepdim: bool = False) -> Value:
    return b.reduce("minimum", x, dims, keepdim)


@register(aten.var_mean.correction)
def _var_mean(
    b: Builder, x: Value, dims: Any = None, *, correction: Any = 1, keepdim: bool = False
) -> tuple[Value, Value]:
    chosen = dims or [*range(len(x.shape))]
    mean = _mean(b, x, chosen, True)
    b.compute(mean)
    difference = arithmetic("sub")(b, x, mean)
    count = prod(x.shape) / max(1, prod(mean.shape))
    degrees = count - (1 if correction is None else correction)
    if degrees <= 0:
        raise UnsupportedError("a variance of too few numbers")
    total = b.reduce("add", arithmetic("mul")(b, difference, difference), chosen, True)
    var = arithmetic("mul")(b, total, 1 / degrees)
    if keepdim:
        return var, mean
    squeezed = [
        b.reshaped(each, torch.Tensor.squeeze, tuple(d % len(x.shape) for d in chosen))[0] for each in (var, mean)
    ]
    return squeezed[0], squeezed[1]


@register(aten.var.correction)
def _var(b: Builder, x: Value, dims: Any = None, *, correction: Any = 1, keepdim: bool = False) -> Value:
    return _var_mean(b, x, dims, correction=correction, keepdim=keepdim)[0]


@register(aten.native_layer_norm.default)
def _layer_norm(
    b: Builder, x: Value, shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> tuple[Value, Value, Value]:
    dims = [*range(len(x.shape) - len(shape), len(x.shape))]
    var, mean = _var_mean(b, x, dims, correction=0, keepdim=True)
    scale = arithmetic("rsqrt")(b, arithmetic("add")(b, var, eps))
    b.compute(scale)
    result = arithmetic("mul")(b, arithmetic("sub")(b, x, mean), scale)
    if weight is not None:
        result = arithmetic("mul")(b, result, weight)
    return result if bias is None else arithmetic("add")(b, result, bias), mean, scale


@register(aten._softmax.default)
def _softmax(b: Builder, x: Value, dim: int, *_: Any) -> Value:
    shifted = arithmetic("sub")(b, x, b.reduce("maximum", x, [dim], True))
    e = arithmetic("exp")(b, shifted)
    b.compute(e)
    return arithmetic("mul")(b, e, arithmetic("reciprocal")(b, b.reduce("add", e, [dim], True)))


@register(aten._safe_softmax.default)
def _safe_softmax(b: Builder, x: Value, dim: int, dtype: Any = None) -> Value:
    """Zero where all elements are masked."""
    is_masked = comparison("eq")(b, b.reduce("maximum", x, [dim], True), float("-inf"))
    return where(b, is_masked, 0.0, _softmax(b, x, dim))


@register(aten._log_softmax.default)
def _log_softmax(b: Builder, x: Value, dim: int, *_: Any) -> Value:
    shifted = arithmetic("sub")(b, x, b.reduce("maximum", x, [dim], True))
    total = b.reduce("add", arithmetic("exp")(b, shifted), [dim], True)
    return arithmetic("sub")(b, shifted, arithmetic("log")(b, total))


# Products


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
