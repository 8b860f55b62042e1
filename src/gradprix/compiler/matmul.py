"""Emission of products of small matrices of one row."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from .emitter import FLOAT, Emitter
from .ir import Multiply, contiguous
from .loops import each_piece, each_vector, nest

ROWS = 6
"""Most rows of a block of the product that is held in registers; with two vectors of columns, 12 of AVX2's 16."""
DEPTH = 256
"""Most terms of a partial sum: a block's columns of the second factor are 16 kB, half of a first-level cache."""
RIGHT = 2**15
"""Elements of the second factor that are multiplied at a time, a quarter of a small second-level cache."""
LEFT = 2**14
"""Elements of the first factor that are multiplied by all of them at a time."""
NEAR = 2**12
"""Elements between the first and the last one of a second factor that needs no copy to stay in a first-level cache."""
UNROLLED = 2


@dataclass(frozen=True)
class Product:
    """`c[..., m, n] = Σ_k a[..., m, k] · b[..., k, n]`, for each index of the leading dimensions.

    Each term is added by one fused multiply-add, in the order of k, to partial sums of up to `DEPTH` terms.

    Args:
        batch: sizes of the leading dimensions.
        rows: sizes of the dimensions m.
        n: number of columns.
        terms: sizes of the dimensions k.
        a, b, c: strides in elements, in the order of the dimensions; columns of `c` are neighbours.
    """

    batch: tuple[int, ...]
    rows: tuple[int, ...]
    n: int
    terms: tuple[int, ...]
    a: tuple[int, ...]
    b: tuple[int, ...]
    c: tuple[int, ...]

    @classmethod
    def from_instruction(cls, x: Multiply) -> "Product":
        """Return the product of an instruction, with dimensions merged where they lie one after the other."""
        first, last, (a, b, c) = (
            len(x.out.shape) - 1 - x.rows,
            len(x.out.shape) - 1,
            (x.left.strides, x.right.strides, x.out.strides),
        )
        batch, *batches = _merge(x.out.shape[:first], a[:first], b[:first], c[:first])
        rows, *of_rows = _merge(x.out.shape[first:-1], a[first:last], c[first:-1])
        terms, *of_terms = _merge(x.left.shape[last:], a[last:], b[first:-1])
        if rows[-1] < ROWS // 2:  # too few for a block
            order = sorted(range(len(rows)), key=rows.__getitem__)
            rows, *of_rows = (tuple(each[i] for i in order) for each in (rows, *of_rows))
        left, right, out = (
            (*batches[0], *of_rows[0], *of_terms[0]),
            (*batches[1], *of_terms[1], b[-1]),
            (*batches[2], *of_rows[1], 1),
        )
        return cls(batch, rows, x.out.shape[-1], terms, left, right, out)

    def emit(self, e: Emitter, a: Any, b: Any, c: Any) -> None:
        """Emit the loops; `a`, `b` and `c` are addresses."""
        nest(
            e,
            self.batch,
            lambda i: self._sum(e, moved(e, a, i, self.a), moved(e, b, i, self.b), moved(e, c, i, self.c)),
        )

    def _sum(self, e: Emitter, a: Any, b: Any, c: Any) -> None:
        """Emit the partial sums of a product: over some terms of dimension `dim`, and all of the later ones."""
        dim, size, (first, right) = len(self.terms) - 1, 1, (len(self.batch), len(self.terms))
        while dim and prod(self.terms[dim:]) <= DEPTH:
            dim -= 1
        most = max(1, DEPTH // prod(self.terms[dim + 1 :]))
        size = -(-self.terms[dim] // -(-self.terms[dim] // most))
        adds = size < prod(self.terms[: dim + 1])
        if adds:
            self._clear(e, c)
        left_terms, right_terms = self.a[-right:], self.b[first:-1]

        def add(outer: Sequence[Any], start: Any, count: int) -> None:
            at = [*outer, start]
            _PartialSum(
                e, moved(e, a, at, left_terms), moved(e, b, at, right_terms), c,
                rows=self.rows, n=self.n, terms=(count, *self.terms[dim + 1 :]),
                a_rows=self.a[first:-right], a_terms=left_terms[dim:], b_terms=right_terms[dim:], b_column=self.b[-1],
                c_rows=self.c[first:-1], adds=adds,
            ).emit()  # fmt: skip

        nest(e, self.terms[:dim], lambda outer: each_piece(e, self.terms[dim], size, lambda i, n: add(outer, i, n)))

    def _clear(self, e: Emitter, c: Any) -> None:
        zero = e.broadcast(FLOAT(0.0))
        rows = self.c[len(self.batch) : -1]
        nest(e, self.rows, lambda i: each_vector(
            e, self.n, lambda j, count: e.store_vector(zero, moved(e, c, i, rows), j, FLOAT, count)
        ))  # fmt: skip


def _merge(sizes: Sequence[int], *strides: Sequence[int]) -> list[tuple[int, ...]]:
    """Merge adjacent dimensions where all strides permit it, and return sizes and strides."""
    groups: list[tuple[int, ...]] = []
    for size, *steps in zip(sizes, *strides, strict=True):
        if groups and all(before == step * size for before, step in zip(groups[-1][1:], steps, strict=True)):
            groups[-1] = groups[-1][0] * size, *steps
        elif size > 1:
            groups.append((size, *steps))
    return [*zip(*(groups or [(1, *[0] * len(strides))]), strict=True)]


def moved(e: Emitter, base: Any, indices: Sequence[Any], strides: Sequence[int]) -> Any:
    """Return the address of an element, given the indices of the first dimensions."""
    return e.address(base, e.offset(indices, strides[: len(indices)]), FLOAT)


@dataclass
class _PartialSum:
    e: Emitter
    a: Any
    b: Any
    c: Any
    rows: tuple[int, ...]
    n: int
    terms: tuple[int, ...]
    a_rows: tuple[int, ...]
    a_terms: tuple[int, ...]
    b_terms: tuple[int, ...]
    b_column: int
    c_rows: tuple[int, ...]
    adds: bool

    def emit(self) -> None:
        """Emit the loops over columns, of which as many are multiplied at a time as stay in the cache."""
        e, depth = self.e, prod(self.terms)
        self.block = e.width * min(2, -(-self.n // e.width))
        full = self.n // self.block * self.block
        several = min(full, max(1, RIGHT // (depth * self.block)) * self.block)
        last = sum((size - 1) * stride for size, stride in zip(self.terms, self.b_terms, strict=True))
        is_near = self.b_column == 1 and (last < NEAR or prod(self.rows) <= 3 * ROWS)
        self.packed = None if is_near else e.variable(e.vector(FLOAT), max(several, self.block) * depth // e.width)
        self.is_left_packed = self.a_rows[-1] == 1 and self.a_terms[-1] != 1 and self.n > self.block

        if full:
            with e.loop(0, full, several) as j:
                end = e.b.add(j, e.index(several))
                if full % several:
                    end = e.b.select(e.b.icmp_signed("<", end, e.index(full)), end, e.index(full))
                self._columns(j, end, self.block)
        if full < self.n:
            self._columns(e.index(full), e.index(self.n), self.n - full)

    def _columns(self, start: Any, end: Any, columns: int) -> None:
        """Emit the product with some columns, a block of `columns` at a time."""
        e = self.e
        if self.packed is not None:
            if self.b_column == 1:
                self._pack_rows(start, end, columns)
            else:
                with e.loop(start, end, self.block) as j:
                    self._pack_columns(moved(e, self.b, [j], [self.b_column]), self._panel(j, start), columns)
        blocks = -(-self.rows[-1] // ROWS)
        small, more = divmod(self.rows[-1], blocks)
        for first, last, size in ((0, more * (small + 1), small + 1), (more * (small + 1), self.rows[-1], small)):
            if first < last:
                nest(e, self.rows[:-1], lambda i, where=(first, last, size): self._rows(i, *where, start, end, columns))

    def _panel(self, j: Any, start: Any) -> Any:
        """Return the address of the packed columns from `j` on."""
        return moved(self.e, self.packed, [self.e.b.sub(j, start)], [prod(self.terms)])

    def _rows(self, outer: Sequence[Any], first: int, last: int, size: int, start: Any, end: Any, columns: int) -> None:
        """Emit the product of some rows, a block of `size` at a time, with some columns."""
        e, depth = self.e, prod(self.terms)
        a, c = (moved(e, base, outer, strides) for base, strides in ((self.a, self.a_rows), (self.c, self.c_rows)))
        several = max(1, LEFT // (depth * size)) * size if self.n > self.block else last - first
        several = min(several, last - first)
        spread = depth + -(-e.width // size)  # a whole vector is stored for each term
        packed = e.variable(FLOAT, several * spread) if self.is_left_packed else None
        with e.loop(first, last, several) as i:
            stop = e.b.add(i, e.index(several))
            if (last - first) % several:
                stop = e.b.select(e.b.icmp_signed("<", stop, e.index(last)), stop, e.index(last))
            if packed is not None:
                self._pack_left(a, packed, spread, i, stop, size)
            with e.loop(start, end, self.block) as j, e.loop(i, stop, size) as r:
                if packed is None:
                    left, rows, terms = moved(e, a, [r], self.a_rows[-1:]), self.a_rows[-1], self.a_terms
                else:
                    left, rows = moved(e, packed, [e.b.sub(r, i)], [spread]), 1
                    terms = tuple(size * stride for stride in contiguous(self.terms))
                if self.packed is None:
                    right, right_terms = moved(e, self.b, [j], [1]), self.b_terms
                else:
                    right, right_terms = self._panel(j, start), self._panel_terms()
                out = moved(e, c, [r, j], [self.c_rows[-1], 1])
                self._block(left, rows, terms, right, right_terms, out, size, columns)

    def _panel_terms(self) -> tuple[int, ...]:
        return tuple(self.block * stride for stride in contiguous(self.terms))

    def _pack_left(self, a: Any, packed: Any, spread: int, start: Any, stop: Any, size: int) -> None:
        """Emit the copy of some rows to memory where those of a block lie together, in the order of terms."""
        e, strides = self.e, tuple(size * stride for stride in contiguous(self.terms))

        def copy(k: Sequence[Any]) -> None:
            x, y = moved(e, a, k, self.a_terms), moved(e, packed, k, strides)
            with e.loop(start, stop, size) as r:
                e.store_vector(e.load_vector(x, r, FLOAT, size), y, e.b.mul(e.b.sub(r, start), e.index(spread)), FLOAT)

        nest(e, self.terms, copy)

    def _pack_rows(self, start: Any, end: Any, columns: int) -> None:
        """Emit the copy of some columns, term by term, to memory where those of a block lie together."""
        e = self.e

        def copy(k: Sequence[Any]) -> None:
            x = moved(e, self.b, k, self.b_terms)
            with e.loop(start, end, self.block) as j:
                y = moved(e, self._panel(j, start), k, self._panel_terms())
                for v in range(0, columns, e.width):
                    each = e.load_vector(x, e.offset([j], [1], v), FLOAT, min(e.width, columns - v))
                    e.store_vector(each, y, v, FLOAT)

        nest(e, self.terms, copy)

    def _pack_columns(self, b: Any, panel: Any, columns: int) -> None:
        """Emit the copy of a block of columns, each with the terms as neighbours where they are."""
        e, width, last, (row, column) = self.e, self.e.width, self.terms[-1], (self.b_terms[-1], self.b_column)
        done = last // width * width if row == 1 else 0

        def copy(outer: list[Any]) -> None:
            x, y = moved(e, b, outer, self.b_terms), moved(e, panel, outer, self._panel_terms())
            for v in range(0, columns, width):
                count = min(width, columns - v)
                if done:
                    with e.loop(0, done, width) as k:
                        rows = [e.load_vector(x, e.offset([k], [1], (v + i) * column), FLOAT) for i in range(count)]
                        for i, each in enumerate(e.transpose([*rows, *[rows[0]] * (width - count)])):
                            e.store_vector(each, y, e.offset([k], [self.block], v + i * self.block), FLOAT)
                if done < last:
                    with e.loop(done, last) as k:
                        for i in range(v, v + count):
                            each = e.load(x, e.offset([k], [row], i * column), FLOAT)
                            e.store(each, y, e.offset([k], [self.block], i), FLOAT)

        nest(e, self.terms[:-1], copy)

    def _block(
        self,
        a: Any,
        a_row: int,
        a_terms: Sequence[int],
        b: Any,
        b_terms: Sequence[int],
        c: Any,
        size: int,
        columns: int,
    ) -> None:
        """Emit the product of some rows and columns that is held in registers."""
        e, (stride, vector) = self.e, (self.c_rows[-1], self.e.vector(FLOAT))
        counts = [min(e.width, columns - v) for v in range(0, columns, e.width)]
        sums = [[e.variable(vector) for _ in counts] for _ in range(size)]
        for each in (x for row in sums for x in row):
            e.b.store(e.broadcast(FLOAT(0.0)), each)
        last = self.terms[-1]
        unrolled = max(n for n in range(1, UNROLLED + 1) if last % n == 0)

        def add(outer: list[Any]) -> None:
            x, y = moved(e, a, outer, a_terms), moved(e, b, outer, b_terms)
            with e.loop(0, last, unrolled) as k:
                for i in range(unrolled):
                    right = [
                        e.load_vector(
                            y,
                            e.offset([k], [b_terms[-1]], i * b_terms[-1] + v * e.width),
                            FLOAT,
                            None if self.packed is not None else count,
                        )
                        for v, count in enumerate(counts)
                    ]
                    for r in range(size):
                        left = e.broadcast(e.load(x, e.offset([k], [a_terms[-1]], r * a_row + i * a_terms[-1]), FLOAT))
                        for v in range(len(counts)):
                            e.b.store(e.fma(left, right[v], e.b.load(sums[r][v], typ=vector)), sums[r][v])

        nest(e, self.terms[:-1], add)
        for r in range(size):
            for v, count in enumerate(counts):
                total = e.b.load(sums[r][v], typ=vector)
                if self.adds:
                    total = e.b.fadd(e.load_vector(c, r * stride + v * e.width, FLOAT, count), total)
                e.store_vector(total, c, r * stride + v * e.width, FLOAT, count)
