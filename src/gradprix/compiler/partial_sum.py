"""Emission of matrix products with a limited number of terms, which are accumulated in registers."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from .emitter import FLOAT, Emitter
from .ir import contiguous
from .loops import nested

ROWS = 6
"""Maximum number of rows of a register block; with two vectors of columns, the block takes 12 of AVX2's 16
registers."""
RIGHT_BLOCK = 2**15
"""Maximum number of elements of the second factor in a cache block: a quarter of a small L2 cache."""
LEFT_BLOCK = 2**14
"""Maximum number of elements of the first factor that are multiplied by a cache block of the second factor at a
time."""
MIN_PACKED_EXTENT = 2**12
"""If the second factor extends over at least this many elements in memory and the first factor has many rows, the
second factor is copied to contiguous memory."""
UNROLLED = 2
"""Number of terms that a loop iteration adds, if the number of terms is a multiple of it."""


@dataclass(frozen=True)
class Dims:
    """Sizes of some dimensions of a product, with their strides in both factors, `a` and `b`, and in the result, `c`.

    The stride is 0 if a matrix lacks the dimension.
    """

    sizes: tuple[int, ...]
    a: tuple[int, ...]
    b: tuple[int, ...]
    c: tuple[int, ...]


def moved(e: Emitter, base: Any, strides: Sequence[int], indices: Sequence[Any]) -> Any:
    """Return the address of an element, given its indices in the first dimensions; other indices are 0."""
    return e.address(base, e.offset(indices, strides[: len(indices)]), FLOAT)


class PartialSum:
    """A matrix product that is stored in the result, or added to it.

    Args:
        e: the emitter.
        rows: dimensions of the rows.
        terms: dimensions of the terms.
        n: number of columns.
        column: stride of the columns in the second factor.
        adds: add the product to the result instead of replacing it.
    """

    def __init__(self, e: Emitter, rows: Dims, terms: Dims, n: int, column: int, adds: bool) -> None:
        self.e, self.rows, self.terms, self.n, self.column, self.adds = e, rows, terms, n, column, adds
        self.block = e.width * min(2, -(-n // e.width))
        self.depth = prod(terms.sizes)
        is_one_pass = column != 1 and prod(rows.sizes) * self.depth <= LEFT_BLOCK  # each block of columns is used once
        self.several = self.block * (1 if is_one_pass else max(1, RIGHT_BLOCK // (self.depth * self.block)))
        last = sum((size - 1) * stride for size, stride in zip(terms.sizes, terms.b, strict=True))
        self.is_packed = column != 1 or (last >= MIN_PACKED_EXTENT and prod(rows.sizes) > 3 * ROWS)
        self.b_terms = terms.b
        if self.is_packed:
            columns = min(self.several, -(-n // self.block) * self.block)
            self.panels = e.variable(e.vector(FLOAT), columns * self.depth // e.width)
            self.b_terms = tuple(self.block * stride for stride in contiguous(terms.sizes))

    def emit(self, a: Any, b: Any, c: Any) -> None:
        """Emit the product, one cache block of columns at a time.

        Args:
            a: address of the first factor.
            b: address of the second factor.
            c: address of the result.
        """
        e, full = self.e, self.n // self.block * self.block
        if full:
            with e.loop(0, full, self.several) as j:
                self._columns(a, b, c, j, self._end(j, self.several, 0, full), self.block)
        if full < self.n:
            self._columns(a, b, c, e.index(full), e.index(self.n), self.n - full)

    def _end(self, start: Any, step: int, first: int, last: int) -> Any:
        """Return the end of the loop step that starts at `start`; the last step of a loop may be shorter."""
        if first + step >= last:
            return self.e.index(last)
        end = self.e.b.add(start, self.e.index(step))
        return end if (last - first) % step == 0 else self.e.intrinsic("smin", end, self.e.index(last))

    def _columns(self, a: Any, b: Any, c: Any, start: Any, end: Any, columns: int) -> None:
        """Emit the product with the columns from `start` to `end`, in register blocks of `columns` columns."""
        e, rows = self.e, self.rows
        if self.is_packed and self.column == 1:
            self._pack_rows(b, start, end, columns)
        elif self.is_packed:
            with e.loop(start, end, self.block) as j:
                self._pack_columns(moved(e, b, [self.column], [j]), self._panel(b, j, start), columns)
        blocks = -(-rows.sizes[-1] // ROWS)
        small, more = divmod(rows.sizes[-1], blocks)
        for first, last, size in ((0, more * (small + 1), small + 1), (more * (small + 1), rows.sizes[-1], small)):
            if first < last:
                several = max(1, LEFT_BLOCK // (self.depth * size)) * size
                with nested(e, rows.sizes[:-1]) as outer, e.loop(first, last, several) as i:
                    x, z = (moved(e, *each, outer) for each in ((a, rows.a), (c, rows.c)))
                    stop = self._end(i, several, first, last)
                    with e.loop(start, end, self.block) as j, e.loop(i, stop, size) as r:
                        left, out = moved(e, x, rows.a[-1:], [r]), moved(e, z, [rows.c[-1], 1], [r, j])
                        self._block(left, self._panel(b, j, start), out, size, columns)

    def _panel(self, b: Any, j: Any, start: Any) -> Any:
        """Return the address of the register block of the second factor that starts at column `j`."""
        if not self.is_packed:
            return moved(self.e, b, [1], [j])
        return moved(self.e, self.panels, [self.depth], [self.e.b.sub(j, start)])

    def _pack_rows(self, b: Any, start: Any, end: Any, columns: int) -> None:
        """Emit the copy of the columns from `start` to `end` to panels, in which register blocks are contiguous.

        The copy proceeds term by term.
        """
        e = self.e
        with nested(e, self.terms.sizes) as k, e.loop(start, end, self.block) as j:
            x, y = moved(e, b, (*self.terms.b, 1), [*k, j]), moved(e, self._panel(b, j, start), self.b_terms, k)
            for v in range(0, columns, e.width):
                e.store_vector(e.load_vector(x, v, FLOAT, min(e.width, columns - v)), y, v, FLOAT)

    def _pack_columns(self, b: Any, panel: Any, columns: int) -> None:
        """Emit the copy of a register block of columns to its panel.

        If the terms are contiguous, a vector of terms is copied at a time.
        """
        e, width, last, row = self.e, self.e.width, self.terms.sizes[-1], self.terms.b[-1]
        done = last // width * width if row == 1 else 0
        with nested(e, self.terms.sizes[:-1]) as outer:
            x, y = moved(e, b, self.terms.b, outer), moved(e, panel, self.b_terms, outer)
            for v in range(0, columns, width):
                lanes = range(v, min(v + width, columns))
                if done:
                    with e.loop(0, done, width) as k:
                        rows = [e.load_vector(x, e.offset([k], [1], i * self.column), FLOAT) for i in lanes]
                        for i, each in enumerate(e.transpose([*rows, *[rows[0]] * (width - len(lanes))])):
                            e.store_vector(each, y, e.offset([k], [self.block], v + i * self.block), FLOAT)
                if done < last:
                    with e.loop(done, last) as k:
                        for i in lanes:
                            element = e.load(x, e.offset([k], [row], i * self.column), FLOAT)
                            e.store(element, y, e.offset([k], [self.block], i), FLOAT)

    def _block(self, a: Any, b: Any, c: Any, size: int, columns: int) -> None:
        """Emit the product of a register block: `size` rows and `columns` columns, with sums held in registers."""
        e, vector, (*_, last) = self.e, self.e.vector(FLOAT), self.terms.sizes
        row, left_step, right_step = self.rows.a[-1], self.terms.a[-1], self.b_terms[-1]
        parts = [(v, min(e.width, columns - v)) for v in range(0, columns, e.width)]
        sums = [[e.variable(vector) for _ in parts] for _ in range(size)]
        for each in (x for row_sums in sums for x in row_sums):
            e.b.store(e.broadcast(FLOAT(0.0)), each)
        unrolled = UNROLLED if last % UNROLLED == 0 else 1
        with nested(e, self.terms.sizes[:-1]) as outer:
            x, y = moved(e, a, self.terms.a, outer), moved(e, b, self.b_terms, outer)
            with e.loop(0, last, unrolled) as first:
                for k in range(unrolled):
                    right = [
                        e.load_vector(
                            y,
                            e.offset([first], [right_step], k * right_step + v),
                            FLOAT,
                            None if self.is_packed else count,
                        )
                        for v, count in parts
                    ]
                    for r, row_sums in enumerate(sums):
                        left = e.broadcast(e.load(x, e.offset([first], [left_step], r * row + k * left_step), FLOAT))
                        for each, total in zip(right, row_sums, strict=True):
                            e.b.store(e.fma(left, each, e.b.load(total, typ=vector)), total)
        for r, row_sums in enumerate(sums):
            for (v, count), each in zip(parts, row_sums, strict=True):
                total, place = e.b.load(each, typ=vector), r * self.rows.c[-1] + v
                if self.adds:
                    total = e.b.fadd(e.load_vector(c, place, FLOAT, count), total)
                e.store_vector(total, c, place, FLOAT, count)
