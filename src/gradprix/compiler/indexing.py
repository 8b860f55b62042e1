"""Lowerings of concatenation, padding, and access by index."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from .builder import Builder
from .elementwise import comparison, to_value, where
from .ir import UnsupportedError, Value
from .lowering import register

aten = torch.ops.aten


@register(aten.cat.default)
def _cat(b: Builder, parts: Sequence[Value], dim: int = 0) -> Value:
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
    return _cat(b, [b.reshaped(part, torch.Tensor.unsqueeze, dim)[0] for part in parts], dim)


def _part_of_zeros(b: Builder, g: Value, shape: Sequence[int], function: Any, *args: Any) -> Value:
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
        before, after = pad[2 * i : 2 * i + 2]
        if before < 0 or after < 0:
            raise UnsupportedError("negative padding")
        dim = len(shape) - 1 - i
        starts[dim], shape[dim] = before, shape[dim] + before + after
    out = b.new(shape, x.dtype)
    b.store(out, b.convert(to_value(b, value, x.dtype), x.dtype))
    inner = out
    for dim, (start, size) in enumerate(zip(starts, x.shape, strict=True)):
        inner = inner.apply(torch.Tensor.narrow, dim, start, size)[0]
    b.store(inner, x)
    return b.loaded(out)


# Indices


@register(aten.embedding.default)
def _embedding(b: Builder, table: Value, index: Value, *_: Any) -> Value:
    shape = (*index.shape, table.shape[1])
    wide = b.reshaped(index, torch.Tensor.unsqueeze, -1)[0]
    flat = b.compute(table)
    lifted = flat.apply(torch.Tensor.view, [flat.shape[0], *[1] * (len(index.shape) - 1), flat.shape[1]])[0]
    if not index.shape:
        raise UnsupportedError("an embedding of a single index")
    return b.gather(b.loaded(lifted), 0, wide, shape)


@register(aten.embedding_dense_backward.default)
def _embedding_backward(b: Builder, g: Value, index: Value, entries: int, padding: int, by_frequency: bool) -> Value:
    if by_frequency:
        raise UnsupportedError("embedding scaled by frequency")
    count = prod(index.shape)
    if padding >= 0:
        keep = comparison("ne")(b, b.reshaped(index, torch.Tensor.unsqueeze, -1)[0], padding)
        g = where(b, keep, g, 0.0)
    flat_index = b.reshaped(index, torch.Tensor.view, [count])[0]
    return b.scatter_add(entries, flat_index, b.reshaped(g, torch.Tensor.view, [count, g.shape[-1]])[0])


@register(aten.gather.default)
def _gather(b: Builder, x: Value, dim: int, index: Value, *_: Any, **__: Any) -> Value:
    dim %= len(x.shape)
    for i, (size, wanted) in enumerate(zip(x.shape, index.shape, strict=True)):
        if i != dim and size != wanted:
            x = b.reshaped(x, torch.Tensor.narrow, i, 0, wanted)[0]
    return b.gather(x, dim, index, index.shape)


@register(aten.scatter.value, aten.scatter.src)
def _scatter(b: Builder, x: Value, dim: int, index: Value, value: Any) -> Value:
    dim %= len(x.shape)
    if index.shape[dim] != 1 or any(
        n != m for i, (n, m) in enumerate(zip(x.shape, index.shape, strict=True)) if i != dim
    ):
        raise UnsupportedError("scatter")
    b.check_index(index, x.shape[dim])
    source = b.convert(to_value(b, value, x.dtype), x.dtype)
    if source.shape and source.shape != index.shape:
        for i, size in enumerate(index.shape):
            source = b.reshaped(source, torch.Tensor.narrow, i, 0, size)[0]
    here = comparison("eq")(b, b.positions(x.shape, dim), index)
    return where(b, here, source, x)
