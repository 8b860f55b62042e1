"""Emission of matrix products of one row: loops over the dimensions, and partial sums over the terms."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from .emitter import FLOAT, Emitter
from .ir import Multiply
from .loops import each_piece, each_vector, nested
from .partial_sum import ROWS, Dims, PartialSum, moved

DEPTH = 320
"""Maximum number of terms of a partial sum; with 16 columns, the second factor takes two thirds of a small L1 cache."""


@dataclass(frozen=True)
class Product:
    """`c[..., m, n] = Σ_k a[..., m, k] · b[..., k, n]`, for each index of the leading dimensions.

    Each term is added by one fused multiply-add, in the order of k, to partial sums of up to `DEPTH` terms.

    Args:
        batch: the leading dimensions.
        rows: the dimensions m.
        terms: the dimensions k.
        n: number of columns, which are contiguous in `c`.
        column: stride of the columns in `b`.
    """

    batch: Dims
    rows: Dims
    terms: Dims
    n: int
    column: int

    @classmethod
    def from_instruction(cls, x: Multiply) -> "Product":
        """Return the product that an instruction computes."""
        *sizes, n = x.out.shape
        a, (*b, column), c = x.left.strides, x.right.strides, x.out.strides
        first, last = len(sizes) - x.rows, len(sizes)
        batch = merged(sizes[:first], a[:first], b[:first], c[:first])
        rows = merged(sizes[first:], a[first:last], [0] * x.rows, c[first:last])
        terms = merged(x.left.shape[last:], a[last:], b[first:], [0] * x.terms)
        if rows.sizes[-1] < ROWS // 2:  # too few for a block of rows
            order = sorted(range(len(rows.sizes)), key=rows.sizes.__getitem__)
            rows = Dims(*(tuple(each[i] for i in order) for each in (rows.sizes, rows.a, rows.b, rows.c)))
        return cls(batch, rows, terms, n, column)

    def emit(self, e: Emitter, a: Any, b: Any, c: Any) -> None:
        """Emit the loops; `a`, `b` and `c` are the addresses of the factors and of the result."""
        with nested(e, self.batch.sizes) as i:
            self._sum(e, *(moved(e, *each, i) for each in ((a, self.batch.a), (b, self.batch.b), (c, self.batch.c))))

    def _sum(self, e: Emitter, a: Any, b: Any, c: Any) -> None:
        """Emit the partial sums of a product: each covers a range of one dimension and all later dimensions."""
        terms, dim = self.terms, len(self.terms.sizes) - 1
        while dim and prod(terms.sizes[dim:]) <= DEPTH:
            dim -= 1
        most = max(1, DEPTH // prod(terms.sizes[dim + 1 :]))
        size = -(-terms.sizes[dim] // -(-terms.sizes[dim] // most))
        adds = size < prod(terms.sizes[: dim + 1])
        if adds:
            self._clear(e, c)
        with nested(e, terms.sizes[:dim]) as outer:

            def add(start: Any, count: int) -> None:
                inner = Dims((count, *terms.sizes[dim + 1 :]), terms.a[dim:], terms.b[dim:], terms.c[dim:])
                left, right = (moved(e, *each, [*outer, start]) for each in ((a, terms.a), (b, terms.b)))
                PartialSum(e, self.rows, inner, self.n, self.column, adds).emit(left, right, c)

            each_piece(e, terms.sizes[dim], size, add)

    def _clear(self, e: Emitter, c: Any) -> None:
        zero = e.broadcast(FLOAT(0.0))
        with nested(e, self.rows.sizes) as i:
            each_vector(e, self.n, lambda j, count: e.store_vector(zero, moved(e, c, self.rows.c, i), j, FLOAT, count))


def merged(sizes: Sequence[int], *strides: Sequence[int]) -> Dims:
    """Merge adjacent dimensions where the strides of all matrices permit it."""
    groups: list[tuple[int, ...]] = []
    for size, *steps in zip(sizes, *strides, strict=True):
        if groups and all(before == step * size for before, step in zip(groups[-1][1:], steps, strict=True)):
            groups[-1] = groups[-1][0] * size, *steps
        elif size > 1:
            groups.append((size, *steps))
    return Dims(*zip(*(groups or [(1, 0, 0, 0)]), strict=True))
