"""Lowerings of embeddings, gather, scatter and indexing."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from .builder import Builder
from .elementwise import arithmetic, comparison, to_value, where
from .ir import UnsupportedError, Value, contiguous
from .lowering import register

aten = torch.ops.aten


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


@register(aten.scatter_add.default)
def _scatter_add(b: Builder, x: Value, dim: int, index: Value, source: Value) -> Value:
    dim %= len(x.shape)
    index = b.convert(index, "int64")
    for i, size in enumerate(index.shape):
        source = b.reshaped(source, torch.Tensor.narrow, i, 0, size)[0]
    b.check_index(index, x.shape[dim])
    strides, count = contiguous(x.shape), prod(index.shape)
    place = arithmetic("mul")(b, index, strides[dim])
    for i, stride in enumerate(strides):
        if i != dim:
            place = arithmetic("add")(b, place, b.positions(index.shape, i, 0, stride))
    flat_place, flat_source = (b.reshaped(y, torch.Tensor.reshape, [count])[0] for y in (place, source))
    sums = b.scatter_add(prod(x.shape), flat_place, b.reshaped(flat_source, torch.Tensor.unsqueeze, 1)[0])
    return arithmetic("add")(b, x, b.reshaped(sums, torch.Tensor.view, x.shape)[0])


class _Indices:
    """Indices for several dimensions of a tensor, combined into one index for the flattened dimensions."""

    def __init__(
        self, b: Builder, shape: Sequence[int], indices: Sequence[Value | None], from_end: bool = True
    ) -> None:
        self.dims = [dim for dim, index in enumerate(indices) if index is not None]
        self.others = [dim for dim in range(len(shape)) if dim not in self.dims]
        self.sizes, self.rest = [shape[dim] for dim in self.dims], [shape[dim] for dim in self.others]
        given = [b.convert(index, "int64") for index in indices if index is not None]
        self.place = b.number(0, "int64")
        for index, size, stride in zip(given, self.sizes, contiguous(self.sizes), strict=True):
            if from_end:
                index = where(b, comparison("lt")(b, index, 0), arithmetic("add")(b, index, size), index)
            b.check_index(index, size)
            self.place = arithmetic("add")(b, self.place, arithmetic("mul")(b, index, stride))
        # In the result, the dimensions of the indices replace the indexed ones; they come first if these are not
        # adjacent.
        is_adjacent = self.dims == [*range(self.dims[0], self.dims[-1] + 1)]
        self.first = self.dims[0] if is_adjacent else 0

    def table(self, b: Builder, x: Value) -> Value:
        """Return a tensor with its indexed dimensions flattened into one, which comes first."""
        moved = b.reshaped(x, torch.Tensor.permute, (*self.dims, *self.others))[0]
        return b.reshaped(moved, torch.Tensor.view, (prod(self.sizes), *self.rest))[0]

    def order(self) -> list[int]:
        """Return the permutation that gives the result's dimensions.

        Before the permutation, the dimensions of the indices come first and those that are not indexed follow.
        """
        count = len(self.place.shape)
        others = [*range(count, count + len(self.rest))]
        return [*others[: self.first], *range(count), *others[self.first :]]


@register(aten.index.Tensor, aten._unsafe_index.Tensor)
def _index(b: Builder, x: Value, indices: Sequence[Value | None], from_end: bool = True) -> Value:
    chosen = _Indices(b, x.shape, indices, from_end)
    count, rest = len(chosen.place.shape), chosen.rest
    if not count:
        raise UnsupportedError("a single index")
    table = b.reshaped(chosen.table(b, x), torch.Tensor.view, (prod(chosen.sizes), *[1] * (count - 1), *rest))[0]
    place = b.reshaped(chosen.place, torch.Tensor.reshape, (*chosen.place.shape, *[1] * len(rest)))[0]
    elements = b.gather(table, 0, place, (*chosen.place.shape, *rest))
    return b.reshaped(elements, torch.Tensor.permute, chosen.order())[0]


@register(aten.index_select.default)
def _index_select(b: Builder, x: Value, dim: int, index: Value) -> Value:
    return _index(b, x, [*[None] * (dim % len(x.shape)), index], from_end=False)


@register(aten.index_put.default, aten._unsafe_index_put.default, aten._index_put_impl.default)
def _index_put(
    b: Builder, x: Value, indices: Sequence[Value | None], values: Value, accumulate: bool = False, *_: Any
) -> Value:
    if not accumulate or any(index is not None and index.dtype in ("bool", "uint8") for index in indices):
        raise UnsupportedError("storing at indices")
    chosen = _Indices(b, x.shape, indices)
    order = chosen.order()
    shape = (*chosen.place.shape, *chosen.rest)
    wide = b.expand(values, [shape[dim] for dim in order])
    rows = b.reshaped(wide, torch.Tensor.permute, [order.index(dim) for dim in range(len(order))])[0]
    count, features = prod(chosen.place.shape), prod(chosen.rest)
    place = b.reshaped(chosen.place, torch.Tensor.reshape, [count])[0]
    sums = b.scatter_add(prod(chosen.sizes), place, b.reshaped(rows, torch.Tensor.reshape, (count, features))[0])
    dims = [*chosen.dims, *chosen.others]
    moved = b.reshaped(sums, torch.Tensor.view, (*chosen.sizes, *chosen.rest))[0]
    return arithmetic("add")(
        b, x, b.reshaped(moved, torch.Tensor.permute, [dims.index(d) for d in range(len(dims))])[0]
    )
