"""Emission of reductions, whose order of operations depends only on the sizes of the dimensions."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from . import vector_math
from .elements import Elements, Places
from .emitter import FLOAT, LONG, Emitter
from .ir import Reduce
from .loops import nested

CHUNK = 64
"""Number of terms of a partial sum; rounding errors grow with the number of terms that are added one after the
other."""
SEVERAL = 4
"""Number of vectors that are accumulated independently, since an addition has a latency of several cycles."""
IDENTITY = {"add": 0.0, "maximum": float("-inf"), "minimum": float("inf")}


def emit_reduce(e: Emitter, reduce: Reduce, places: Places) -> None:
    """Emit the loops of a `Reduce` instruction.

    If the last dimension is reduced, vectors lie along it. Otherwise, a vector holds several columns.
    """
    shape, last = reduce.out.shape, len(reduce.out.shape) - 1
    kept = [dim for dim in range(len(shape)) if dim not in reduce.dims]
    elements = Elements(e, places, last)
    _Reduction(e, reduce, elements, kept).emit(last in reduce.dims)


class _Reduction:
    """Emits the loops of one reduction; `kept` lists the dimensions that are not reduced."""

    def __init__(self, e: Emitter, reduce: Reduce, elements: Elements, kept: list[int]) -> None:
        self.e, self.reduce, self.elements, self.kept = e, reduce, elements, kept
        self.shape, self.last = reduce.out.shape, len(reduce.out.shape) - 1
        self.identity = vector_math.number(e, IDENTITY[reduce.op])

    def emit(self, along: bool) -> None:
        """Emit the loops; `along` is True if the last dimension is reduced."""
        outer = [dim for dim in self.kept if dim != self.last]

        with nested(self.e, [self.shape[dim] for dim in outer]) as kept:
            indices: list[Any] = [self.e.index(0)] * len(self.shape)
            for dim, i in zip(outer, kept, strict=True):
                indices[dim] = i
            if along:
                self._row(indices)
            else:
                self._columns(indices)

    def _combine(self, total: Any, value: Any) -> Any:
        return self.elements.arithmetic(self.reduce.op, total, value)

    def _accumulate(self, sums: list[Any], indices: list[Any], dims: Sequence[int], body: Callable[..., None]) -> None:
        """Emit loops over the reduced dimensions `dims`; sums of many terms are split into partial sums."""
        if not dims:
            body(sums, indices)
            return
        dim, size = dims[-1], self.shape[dims[-1]]
        rest = dims[:-1]

        def run(totals: list[Any], start: Any, stop: Any) -> None:
            with self.e.loop(start, stop) as i:
                body(totals, [*indices[:dim], i, *indices[dim + 1 :]])

        def inner(totals: list[Any], at: list[Any]) -> None:
            nonlocal indices
            before, indices = indices, at
            if size <= 2 * CHUNK or self.reduce.op != "add":
                run(totals, 0, size)
            else:
                with self.e.loop(0, size // CHUNK) as chunk:
                    start = self.e.b.mul(chunk, LONG(CHUNK))
                    self._partial(totals, lambda part: run(part, start, self.e.b.add(start, LONG(CHUNK))))
                if size % CHUNK:
                    self._partial(totals, lambda part: run(part, size // CHUNK * CHUNK, size))
            indices = before

        self._outer(sums, indices, rest, inner)

    def _outer(self, sums: list[Any], indices: list[Any], dims: Sequence[int], body: Callable[..., None]) -> None:
        if not dims:
            body(sums, indices)
            return
        with self.e.loop(0, self.shape[dims[0]]) as i:
            at = [*indices[: dims[0]], i, *indices[dims[0] + 1 :]]
            if len(dims) == 1 and self.reduce.op == "add":
                self._partial(sums, lambda part: body(part, at))
            else:
                self._outer(sums, at, dims[1:], body)

    def _partial(self, totals: list[Any], body: Callable[[list[Any]], None]) -> None:
        """Emit a partial sum and its addition to the totals."""
        part = self._variables(len(totals))
        body(part)
        for total, each in zip(totals, part, strict=True):
            self._add(total, self._read(each))

    def _variables(self, count: int) -> list[Any]:
        variables = [self.e.variable(self.e.vector(FLOAT)) for _ in range(count)]
        for each in variables:
            self.e.b.store(self.identity, each)
        return variables

    def _read(self, variable: Any) -> Any:
        return self.e.b.load(variable, typ=self.e.vector(FLOAT))

    def _add(self, variable: Any, value: Any) -> None:
        self.e.b.store(self._combine(self._read(variable), value), variable)

    def _columns(self, indices: list[Any]) -> None:
        """Emit the reduction of several columns at once, if the last dimension is not reduced."""
        e, size = self.e, self.shape[self.last]
        dims = list(self.reduce.dims)
        step = min(SEVERAL, max(1, size // e.width)) * e.width

        def block(start: Any, columns: int) -> None:
            counts = [min(e.width, columns - i) for i in range(0, columns, e.width)]

            def body(sums: list[Any], at: list[Any]) -> None:
                for k, count in enumerate(counts):
                    column = [*at[: self.last], e.b.add(start, LONG(k * e.width))]
                    self._add(sums[k], self.elements.compute(self.reduce.node, column, count))

            sums = self._variables(len(counts))
            self._accumulate(sums, indices, dims, body)
            for k, count in enumerate(counts):
                column = [*indices[: self.last], e.b.add(start, LONG(k * e.width))]
                self.elements.store(self._read(sums[k]), self.reduce.out, column, count)

        full = size // step * step
        if full:
            with e.loop(0, full, step) as i:
                block(i, step)
        if full < size:
            block(e.index(full), size - full)

    def _row(self, indices: list[Any]) -> None:
        """Emit the reduction along the last dimension."""
        e, size = self.e, self.shape[self.last]
        dims = [dim for dim in self.reduce.dims if dim != self.last]
        several = min(SEVERAL, max(1, size // e.width))
        step = several * e.width

        def body(sums: list[Any], at: list[Any]) -> None:
            def add(totals: list[Any], i: Any, k: int, count: int) -> None:
                value = self.elements.compute(self.reduce.node, [*at[: self.last], i], count)
                if count < e.width:
                    value = e.b.select(e.mask(count), value, self.identity)
                self._add(totals[k], value)

            def run(totals: list[Any], start: Any, stop: Any) -> None:
                with e.loop(start, stop, step) as i:
                    for k in range(several):
                        add(totals, e.b.add(i, LONG(k * e.width)), k, e.width)

            full, long = size // step * step, CHUNK * step
            chunked = full // long * long if self.reduce.op == "add" and full > 2 * long else 0
            if chunked:
                with e.loop(0, chunked, long) as start:
                    self._partial(sums, partial(run, start=start, stop=e.b.add(start, LONG(long))))
            if chunked < full:
                run(sums, chunked, full)
            for start in range(full, size, e.width):
                add(sums, e.index(start), (start - full) // e.width % several, min(e.width, size - start))

        sums = self._variables(several)
        self._accumulate(sums, indices, dims, body)
        values = [self._read(each) for each in sums]
        while len(values) > 1:
            values = [
                self._combine(*values[i : i + 2]) if i + 1 < len(values) else values[i]
                for i in range(0, len(values), 2)
            ]
        value, n = values[0], e.width
        while n > 1:
            n //= 2
            moved = e.shuffle(value, value, [(k + n) % e.width if k < n else k for k in range(e.width)])
            value = self._combine(value, moved)
        self.elements.store(value, self.reduce.out, indices, 1)
