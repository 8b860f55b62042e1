"""Lowerings of views and of functions that create constant tensors."""

import operator
from collections.abc import Sequence
from typing import Any

import torch

from .builder import Builder, dtype_name
from .elementwise import to_value
from .ir import Value, View
from .lowering import Lowering, register

aten = torch.ops.aten
VIEWS = [
    aten.view.default, aten._unsafe_view.default, aten.permute.default, aten.transpose.int,
    aten.t.default, aten.expand.default, aten.select.int, aten.slice.Tensor, aten.squeeze.dim, aten.squeeze.dims,
    aten.squeeze.default, aten.unsqueeze.default, aten.detach.default, aten.alias.default, aten.diagonal.default,
    aten.unfold.default, aten.movedim.int, aten.numpy_T.default,
]  # fmt: skip
MANY_VIEWS = [aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int, aten.unsafe_split.Tensor]
COPIES = [aten.clone.default, aten.lift_fresh_copy.default, aten.contiguous.default, aten.lift_fresh.default]


register(*COPIES)(lambda b, x, *args, **kwargs: x)


def _view_of(target: Any) -> Lowering:
    return lambda b, x, *args, **kwargs: b.reshaped(x, target, *args, **kwargs)[0]


def _views_of(target: Any) -> Lowering:
    return lambda b, x, *args, **kwargs: b.reshaped(x, target, *args, **kwargs)


for _target in VIEWS:
    register(_target)(_view_of(_target))
for _target in MANY_VIEWS:
    register(_target)(_views_of(_target))


@register(operator.getitem)
def _getitem(b: Builder, parts: Sequence[Any], i: int) -> Any:
    return parts[i]


@register(aten.flip.default)
def _flip(b: Builder, x: Value, dims: Sequence[int]) -> Value:
    view = b.compute(x)
    strides, offset = list(view.strides), view.offset
    for dim in dims:
        offset += (x.shape[dim] - 1) * strides[dim]
        strides[dim] *= -1
    return b.copy(b.loaded(View(view.buffer, x.shape, tuple(strides), offset)))


# Constants


def _size(x: Any, *args: Any) -> Any:
    """Return the size of the tensor that a function creates: a given size, or that of a tensor argument."""
    return args[0] if args else x.shape if isinstance(x, Value) else x


@register(aten.full.default, aten.new_full.default, aten.full_like.default)
def _full(b: Builder, *args: Any, dtype: torch.dtype | None = None, **_: Any) -> Value:
    *size, number = args
    kind = "float32" if isinstance(number, float) else "bool" if isinstance(number, bool) else "int64"
    return b.convert(b.number(number, kind, _size(*size)), kind if dtype is None else dtype_name(dtype))


def _filled(number: float) -> Lowering:
    def run(b: Builder, *args: Any, dtype: torch.dtype | None = None, **_: Any) -> Value:
        kind = args[0].dtype if isinstance(args[0], Value) and dtype is None else dtype_name(dtype or torch.float32)
        return b.convert(b.number(number, "float32", _size(*args)), kind)

    return run


register(aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default, aten.zero.default)(_filled(0.0))
register(aten.ones.default, aten.ones_like.default, aten.new_ones.default)(_filled(1.0))
for _target in (aten.empty.memory_format, aten.empty_like.default, aten.new_empty.default):
    register(_target)(_filled(0.0))


@register(aten.empty_strided.default)
def _empty_strided(b: Builder, size: Sequence[int], strides: Any, **kwargs: Any) -> Value:
    return _filled(0.0)(b, size, **kwargs)  # type: ignore[no-any-return]


@register(aten.new_empty_strided.default)
def _new_empty_strided(b: Builder, x: Value, size: Sequence[int], strides: Any, **kwargs: Any) -> Value:
    return _filled(0.0)(b, x, size, **kwargs)  # type: ignore[no-any-return]


@register(aten.scalar_tensor.default)
def _scalar(b: Builder, number: Any, dtype: torch.dtype | None = None, **_: Any) -> Value:
    return b.convert(to_value(b, number, "int64"), dtype_name(dtype or torch.float32))


@register(aten.arange.start_step, aten.arange.start, aten.arange.default)
def _arange(b: Builder, *args: Any, dtype: torch.dtype | None = None, **_: Any) -> Value:
    start, end, step = {1: (0, *args, 1), 2: (*args, 1), 3: args}[len(args)]
    values = torch.arange(start, end, step, dtype=dtype)
    if values.dtype is not torch.int64:
        return b.constant(values)
    return b.positions(values.shape, 0, start, step)


@register(aten.fill.Scalar, aten.fill.Tensor)
def _fill(b: Builder, x: Value, value: Any) -> Value:
    return b.expand(b.convert(to_value(b, value, x.dtype), x.dtype), x.shape)


@register(aten.copy.default)
def _copy(b: Builder, x: Value, y: Value, *_: Any) -> Value:
    return b.expand(b.convert(y, x.dtype), x.shape)
