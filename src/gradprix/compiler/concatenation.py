"""Lowerings of concatenation and padding."""

from collections.abc import Sequence
from typing import Any

import torch

from .builder import Builder
from .elementwise import to_value
from .ir import UnsupportedError, Value
from .lowering import register

aten = torch.ops.aten


@register(aten.cat.default)
def concatenate(b: Builder, parts: Sequence[Value], dim: int = 0) -> Value:
    """Concatenate values along a dimension."""
    parts = [part for part in parts if part.shape != (0,)]
    dim %= len(parts[0].shape)
    shape = list(parts[0].shape)
    shape[dim] = sum(part.shape[dim] for part in parts)
    out, start = b.new(shape, parts[0].dtype), 0
    for part in parts:
        if part.dtype != parts[0].dtype:
            raise UnsupportedError("cat of several types")
        b.store(out.apply(torch.Tensor.narrow, dim, start, part.shape[dim])[0], part)
        start += part.shape[dim]
    return b.loaded(out)


@register(aten.stack.default)
def _stack(b: Builder, parts: Sequence[Value], dim: int = 0) -> Value:
    dim %= len(parts[0].shape) + 1
    return concatenate(b, [b.reshaped(part, torch.Tensor.unsqueeze, dim)[0] for part in parts], dim)


@register(aten.roll.default)
def _roll(b: Builder, x: Value, shifts: Any, dims: Any = ()) -> Value:
    shifts, dims = ([each] if isinstance(each, int) else each for each in (shifts, dims))
    if not dims:
        raise UnsupportedError("a roll of all dimensions together")
    for shift, dim in zip(shifts, dims, strict=True):
        start = -shift % max(1, x.shape[dim])
        parts = [(start, x.shape[dim] - start), (0, start)]
        x = concatenate(b, [b.reshaped(x, torch.Tensor.narrow, dim, *part)[0] for part in parts if part[1]], dim)
    return x


def _part_of_zeros(b: Builder, g: Value, shape: Sequence[int], function: Any, *args: Any) -> Value:
    """Return zeros of a shape, with `g` in the part that the view operation `function` selects."""
    out = b.new(shape, g.dtype)
    b.store(out, b.number(0, g.dtype))
    b.store(out.apply(function, *args)[0], g)
    return b.loaded(out)


@register(aten.select_backward.default)
def _select_backward(b: Builder, g: Value, shape: Sequence[int], dim: int, i: int) -> Value:
    return _part_of_zeros(b, g, shape, torch.Tensor.select, dim, i)


@register(aten.slice_backward.default)
def _slice_backward(b: Builder, g: Value, shape: Sequence[int], dim: int, start: int, end: int, step: int) -> Value:
    return _part_of_zeros(b, g, shape, aten.slice.Tensor, dim, start, end, step)


@register(aten.constant_pad_nd.default)
def _pad(b: Builder, x: Value, pad: Sequence[int], value: float = 0) -> Value:
    shape = list(x.shape)
    starts = [0] * len(shape)
    for i in range(len(pad) // 2):
        dim, removed = len(shape) - 1 - i, [max(0, -each) for each in pad[2 * i : 2 * i + 2]]
        x = b.reshaped(x, torch.Tensor.narrow, dim, removed[0], x.shape[dim] - sum(removed))[0]
        shape[dim] = x.shape[dim]
        before, after = (max(0, each) for each in pad[2 * i : 2 * i + 2])
        dim = len(shape) - 1 - i
        starts[dim], shape[dim] = before, shape[dim] + before + after
    out = b.new(shape, x.dtype)
    b.store(out, b.convert(to_value(b, value, x.dtype), x.dtype))
    inner = out
    for dim, (start, size) in enumerate(zip(starts, x.shape, strict=True)):
        inner = inner.apply(torch.Tensor.narrow, dim, start, size)[0]
    b.store(inner, x)
    return b.loaded(out)
