"""Emission of products of small matrices of one row."""

from dataclasses import dataclass
from typing import Any

from .emitter import FLOAT, Emitter

ROWS = 6
"""Most rows of a block of the product that is held in registers; with two vectors of columns, 12 of AVX2's 16."""
DEPTH = 256
"""Rows of the second factor that are packed at a time: 16 kB with 16 columns, half of a small first-level cache; and
terms of a partial sum."""


@dataclass(frozen=True)
class Product:
    """`c[..., m, n] = Σ_k a[..., m, k] · b[..., k, n]`, for each index of the leading dimensions.

    Each term is added by one fused multiply-add, in the order of k, to partial sums of `DEPTH` terms.

    Args:
        batch: sizes of the leading dimensions.
        m, n, k: sizes of the matrices.
        a, b, c: strides in elements, the leading dimensions first; columns of `c` are neighbours.
        accumulate: add to what is in `c`.
    """

    batch: tuple[int, ...]
    m: int
    n: int
    k: int
    a: tuple[int, ...]
    b: tuple[int, ...]
    c: tuple[int, ...]
    accumulate: bool = False

    @property
    def _adds(self) -> bool:
        """True if a block is added to what is in `c`."""
        return self.accumulate or self.k > DEPTH

    def emit(self, e: Emitter, a: Any, b: Any, c: Any) -> None:
        """Emit the loops; `a`, `b` and `c` are addresses."""
        self._batch(e, a, b, c, 0)

    def _batch(self, e: Emitter, a: Any, b: Any, c: Any, dim: int) -> None:
        if dim == len(self.batch):
            self._columns(e, a, b, c)
            return
        with e.loop(0, self.batch[dim]) as i:
            x, y, z = (
                e.address(base, e.offset([i], [strides[dim]]), FLOAT)
                for base, strides in ((a, self.a), (b, self.b), (c, self.c))
            )
            self._batch(e, x, y, z, dim + 1)

    def _columns(self, e: Emitter, a: Any, b: Any, c: Any) -> None:
        block = e.width * min(2, -(-self.n // e.width))
        panel = e.variable(e.vector(FLOAT), min(self.k, DEPTH) * block // e.width)
        full, whole = self.n // block * block, self.k // DEPTH * DEPTH

        def panels(start: Any, depth: int) -> None:
            if full:
                with e.loop(0, full, block) as j:
                    self._panel(e, a, b, c, panel, j, block, start, depth)
            if full < self.n:
                self._panel(e, a, b, c, panel, e.index(full), self.n - full, start, depth)

        if self._adds and not self.accumulate:
            self._clear(e, c)
        if whole:
            with e.loop(0, whole, DEPTH) as start:
                panels(start, DEPTH)
        if whole < self.k:
            panels(e.index(whole), self.k - whole)

    def _clear(self, e: Emitter, c: Any) -> None:
        zero = e.broadcast(FLOAT(0.0))
        with e.loop(0, self.m) as i:
            for j in range(0, self.n, e.width):
                e.store_vector(zero, c, e.offset([i], [self.c[-2]], j), FLOAT, min(e.width, self.n - j))

    def _panel(
        self, e: Emitter, a: Any, b: Any, c: Any, panel: Any, j: Any, columns: int, start: Any, depth: int
    ) -> None:
        row, column = self.b[-2:]
        b = e.address(b, e.offset([j, start], [column, row]), FLOAT)
        if column == 1:
            panel_row = self._pack(e, b, panel, columns, depth)
        else:
            panel_row = self._pack_transposed(e, b, panel, columns, depth)
        a = e.address(a, e.offset([start], [self.a[-1]]), FLOAT)
        c = e.address(c, j, FLOAT)
        blocks = -(-self.m // ROWS)
        small, more = divmod(self.m, blocks)
        if more:
            with e.loop(0, more * (small + 1), small + 1) as i:
                self._block(e, a, panel, panel_row, c, i, small + 1, columns, depth)
        if more < blocks:
            with e.loop(more * (small + 1), self.m, small) as i:
                self._block(e, a, panel, panel_row, c, i, small, columns, depth)

    def _pack(self, e: Emitter, b: Any, panel: Any, columns: int, depth: int) -> int:
        vectors = -(-columns // e.width)
        with e.loop(0, depth) as k:
            for v in range(vectors):
                count = min(e.width, columns - v * e.width)
                x = e.load_vector(b, e.offset([k], [self.b[-2]], v * e.width), FLOAT, count)
                e.store_vector(x, panel, e.offset([k], [vectors * e.width], v * e.width), FLOAT)
        return vectors * e.width

    def _pack_transposed(self, e: Emitter, b: Any, panel: Any, columns: int, depth: int) -> int:
        vectors, (row, column) = -(-columns // e.width), self.b[-2:]
        step = vectors * e.width
        for v in range(vectors):
            count = min(e.width, columns - v * e.width)
            if row == 1 and depth >= e.width:
                with e.loop(0, depth // e.width * e.width, e.width) as k:
                    rows = [
                        e.load_vector(b, e.offset([k], [1], (v * e.width + i) * column), FLOAT) for i in range(count)
                    ]
                    rows += [rows[0]] * (e.width - count)
                    for i, x in enumerate(e.transpose(rows)):
                        e.store_vector(x, panel, e.offset([k], [step], i * step + v * e.width), FLOAT)
            rest = depth // e.width * e.width if row == 1 else 0
            if rest < depth:
                with e.loop(rest, depth) as k:
                    for i in range(count):
                        x = e.load(b, e.offset([k], [row], (v * e.width + i) * column), FLOAT)
                        e.store(x, panel, e.offset([k], [step], v * e.width + i), FLOAT)
        return step

    def _block(
        self, e: Emitter, a: Any, panel: Any, step: int, c: Any, i: Any, rows: int, columns: int, depth: int
    ) -> None:
        vectors = -(-columns // e.width)
        c = e.address(c, e.offset([i], [self.c[-2]]), FLOAT)
        a = e.address(a, e.offset([i], [self.a[-2]]), FLOAT)
        counts = [min(e.width, columns - v * e.width) for v in range(vectors)]
        sums = [[e.variable(e.vector(FLOAT)) for _ in range(vectors)] for _ in range(rows)]
        for r in range(rows):
            for v in range(vectors):
                e.b.store(e.broadcast(FLOAT(0.0)), sums[r][v])
        with e.loop(0, depth) as k:
            right = [e.load_vector(panel, e.offset([k], [step], v * e.width), FLOAT) for v in range(vectors)]
            for r in range(rows):
                left = e.broadcast(e.load(a, e.offset([k], [self.a[-1]], r * self.a[-2]), FLOAT))
                for v in range(vectors):
                    total = e.b.load(sums[r][v], typ=e.vector(FLOAT))
                    e.b.store(e.fma(left, right[v], total), sums[r][v])
        for r in range(rows):
            for v in range(vectors):
                total = e.b.load(sums[r][v], typ=e.vector(FLOAT))
                if self._adds:
                    total = e.b.fadd(e.load_vector(c, r * self.c[-2] + v * e.width, FLOAT, counts[v]), total)
                e.store_vector(total, c, r * self.c[-2] + v * e.width, FLOAT, counts[v])
