"""Lowerings of variances, normalizations and softmax."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from .builder import Builder
from .elementwise import arithmetic, comparison, where
from .ir import UnsupportedError, Value
from .lowering import register
from .reductions import mean as average

aten = torch.ops.aten


@register(aten.var_mean.correction)
def _var_mean(
    b: Builder, x: Value, dims: Any = None, *, correction: Any = 1, keepdim: bool = False
) -> tuple[Value, Value]:
    chosen = dims or [*range(len(x.shape))]
    mean = average(b, x, chosen, True)
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
def _softmax(b: Builder, x: Value, dim: int, *_: Any, largest: Value | None = None) -> Value:
    shifted = arithmetic("sub")(b, x, b.reduce("maximum", x, [dim], True) if largest is None else largest)
    e = arithmetic("exp")(b, shifted)
    b.compute(e)
    return arithmetic("mul")(b, e, arithmetic("reciprocal")(b, b.reduce("add", e, [dim], True)))


@register(aten._safe_softmax.default)
def _safe_softmax(b: Builder, x: Value, dim: int, dtype: Any = None) -> Value:
    """Compute the softmax, with zeros where all elements are masked (minus infinity)."""
    largest = b.reduce("maximum", x, [dim], True)
    is_masked = comparison("eq")(b, largest, float("-inf"))
    return where(b, is_masked, 0.0, _softmax(b, x, dim, largest=largest))


@register(aten._log_softmax.default)
def _log_softmax(b: Builder, x: Value, dim: int, *_: Any) -> Value:
    shifted = arithmetic("sub")(b, x, b.reduce("maximum", x, [dim], True))
    total = b.reduce("add", arithmetic("exp")(b, shifted), [dim], True)
    return arithmetic("sub")(b, shifted, arithmetic("log")(b, total))


@register(aten.native_group_norm.default)
def _group_norm(
    b: Builder, x: Value, weight: Any, bias: Any, batch: int, channels: int, pixels: int, groups: int, eps: float
) -> tuple[Value, Value, Value]:
    grouped = b.reshaped(x, torch.Tensor.reshape, (batch, groups, channels // groups * pixels))[0]
    result, mean, scale = _layer_norm(b, grouped, grouped.shape[2:], None, None, eps)
    result = b.reshaped(result, torch.Tensor.reshape, x.shape)[0]
    wide = 1, channels, *[1] * (len(x.shape) - 2)
    if weight is not None:
        result = arithmetic("mul")(b, result, b.reshaped(weight, torch.Tensor.reshape, wide)[0])
    if bias is not None:
        result = arithmetic("add")(b, result, b.reshaped(bias, torch.Tensor.reshape, wide)[0])
    return result, *(b.reshaped(each, torch.Tensor.reshape, (batch, groups))[0] for each in (mean, scale))  # type: ignore[return-value]


@register(aten._weight_norm_interface_backward.default)
def _weight_norm_backward(
    b: Builder, change: Value, v: Value, g: Value, norms: Value, dim: int = 0
) -> tuple[Value, Value]:
    """Return the gradients with respect to v and g of `w = g · v / norm(v)`."""
    times, divided = arithmetic("mul"), arithmetic("div")
    others = [d for d in range(len(v.shape)) if d != dim % len(v.shape)]
    along = divided(b, b.reduce("add", times(b, change, v), others, True), norms)
    b.compute(along)
    across = arithmetic("sub")(b, change, times(b, v, divided(b, along, norms)))
    return times(b, divided(b, g, norms), across), along
