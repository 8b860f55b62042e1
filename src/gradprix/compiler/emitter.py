"""Emission of loops and vector arithmetic as LLVM code."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

FLOAT, BYTE, LONG, INT, BIT = ir.FloatType(), ir.IntType(8), ir.IntType(64), ir.IntType(32), ir.IntType(1)
SHORT = ir.IntType(16)
DOUBLE = ir.DoubleType()
POINTER = ir.PointerType()
TYPES = {"float32": FLOAT, "bfloat16": SHORT, "bool": BYTE, "uint8": BYTE, "int32": INT, "int64": LONG}
"""LLVM types of elements in memory; a bool takes a byte, and a bfloat16 is the upper half of a float32."""
SIZES = {"float32": 4, "bfloat16": 2, "bool": 1, "uint8": 1, "int32": 4, "int64": 8}
"""Bytes of an element in memory."""


class Emitter:
    """Emits the LLVM code of one function.

    Args:
        function: the LLVM function.
        width: number of elements in a vector.
    """

    def __init__(self, function: ir.Function, width: int) -> None:
        self.function, self.width = function, width
        self._entry = ir.IRBuilder(function.append_basic_block("entry"))
        self.b = ir.IRBuilder(function.append_basic_block("body"))
        self._body = self.b.block

    def close(self) -> None:
        """Emit the end of the function; no code can follow."""
        self.b.ret_void()
        self._entry.branch(self._body)

    def index(self, value: int) -> ir.Constant:
        """Return a constant index."""
        return ir.Constant(LONG, value)

    def vector(self, kind: ir.Type) -> ir.VectorType:
        """Return the type of a vector with elements of type `kind`."""
        return ir.VectorType(kind, self.width)

    def variable(self, kind: ir.Type, count: int = 1) -> Any:
        """Allocate `count` local variables and return the address of the first."""
        address = self._entry.alloca(kind, count if count > 1 else None)
        address.align = 64
        address.type = POINTER  # llvmlite sets a typed pointer, which LLVM no longer has
        return address

    @contextmanager
    def loop(self, start: Any, stop: Any, step: int = 1) -> Iterator[Any]:
        """Emit a loop around the code that is emitted in the context, and yield the loop's counter.

        If the code would run only once, it is emitted without a loop.

        Raises:
            ValueError: if the bounds are constants and the loop would never run.
        """
        start = self.index(start) if isinstance(start, int) else start
        if isinstance(stop, int) and isinstance(start, ir.Constant):
            if start.constant >= stop:
                raise ValueError("a loop that never runs")
            if start.constant + step >= stop:
                yield start
                return
        stop = self.index(stop) if isinstance(stop, int) else stop
        before, body, after = self.b.block, self.b.append_basic_block("loop"), self.b.append_basic_block("after")
        self.b.branch(body)
        self.b.position_at_end(body)
        counter = self.b.phi(LONG)
        counter.add_incoming(start, before)
        yield counter
        following = self.b.add(counter, self.index(step), flags=("nuw", "nsw"))
        counter.add_incoming(following, self.b.block)
        self.b.cbranch(self.b.icmp_signed("<", following, stop), body, after)
        self.b.position_at_end(after)

    def offset(self, indices: Sequence[Any], strides: Sequence[int], start: int = 0) -> Any:
        """Return `start + Σ index · stride`."""
        total: Any = self.index(start)
        for index, stride in zip(indices, strides, strict=True):
            if stride and not (isinstance(index, ir.Constant) and index.constant == 0):
                total = self.b.add(total, index if stride == 1 else self.b.mul(index, self.index(stride)))
        return total

    def address(self, base: Any, offset: Any, kind: ir.Type) -> Any:
        """Return the address of an element of type `kind`; the offset is a number of elements."""
        if isinstance(offset, int):
            offset = self.index(offset)
        return self.b.gep(base, [offset], inbounds=True, source_etype=kind)

    def load(self, base: Any, offset: Any, kind: ir.Type) -> Any:
        """Load an element."""
        return self.b.load(self.address(base, offset, kind), typ=kind, align=_align(kind))

    def store(self, value: Any, base: Any, offset: Any, kind: ir.Type) -> None:
        """Store an element."""
        self.b.store(value, self.address(base, offset, kind), align=_align(kind))

    def load_vector(self, base: Any, offset: Any, kind: ir.Type, count: int | None = None) -> Any:
        """Load `count` contiguous elements, by default a full vector; the remaining elements of the vector are zero."""
        where, vector = self.address(base, offset, kind), self.vector(kind)
        if count is None or count == self.width:
            return self.b.load(where, typ=vector, align=_align(kind))
        name = f"llvm.masked.load.v{self.width}{_short(kind)}.p0"
        mask = ir.VectorType(BIT, self.width)
        load = self._declared(name, vector, [POINTER, mask, vector])
        return self.b.call(load, [where, self.mask(count), ir.Constant(vector, None)])

    def store_vector(self, value: Any, base: Any, offset: Any, kind: ir.Type, count: int | None = None) -> None:
        """Store the first `count` elements of a vector, by default all, in contiguous memory."""
        where = self.address(base, offset, kind)
        if count is None or count == self.width:
            self.b.store(value, where, align=_align(kind))
            return
        name = f"llvm.masked.store.v{self.width}{_short(kind)}.p0"
        mask = ir.VectorType(BIT, self.width)
        store = self._declared(name, ir.VoidType(), [self.vector(kind), POINTER, mask])
        self.b.call(store, [value, where, self.mask(count)])

    def mask(self, count: int) -> ir.Constant:
        """Return a mask that is true for the first `count` elements of a vector."""
        return ir.Constant(ir.VectorType(BIT, self.width), [int(i < count) for i in range(self.width)])

    def broadcast(self, value: Any) -> Any:
        """Return a vector whose elements all have the same value."""
        kind = self.vector(value.type)
        first = self.b.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(INT, 0))
        return self.b.shuffle_vector(first, ir.Constant(kind, ir.Undefined), ir.Constant(self.vector(INT), None))

    def shuffle(self, first: Any, second: Any, lanes: Sequence[int]) -> Any:
        """Return a vector of the elements at `lanes` in the concatenation of two vectors."""
        return self.b.shuffle_vector(first, second, ir.Constant(ir.VectorType(INT, len(lanes)), list(lanes)))

    def extract(self, vector: Any, lane: int) -> Any:
        """Return an element of a vector."""
        return self.b.extract_element(vector, ir.Constant(INT, lane))

    def insert(self, vector: Any, value: Any, lane: int) -> Any:
        """Return a vector with one element replaced."""
        return self.b.insert_element(vector, value, ir.Constant(INT, lane))

    def intrinsic(self, name: str, *args: Any) -> Any:
        """Call an LLVM intrinsic whose result has the type of its first argument, a vector or a number."""
        kind = args[0].type
        short = f"v{kind.count}{_short(kind.element)}" if isinstance(kind, ir.VectorType) else _short(kind)
        return self.b.call(self._declared(f"llvm.{name}.{short}", kind, [x.type for x in args]), args)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Return `a · b + c`, rounded once."""
        return self.intrinsic("fma", a, b, c)

    def cycles(self) -> Any:
        """Return the processor's cycle counter."""
        return self.b.call(self._declared("llvm.readcyclecounter", LONG, []), [])

    def transpose(self, rows: Sequence[Any]) -> list[Any]:
        """Transpose a square matrix, given as a list of vectors."""
        rows, n, step = list(rows), self.width, 1
        while step < n:
            after = list(rows)
            for i in range(n):
                if i & step:
                    continue
                low = [(k & ~step) | (n if k & step else 0) for k in range(n)]
                high = [(k | step) | (n if k & step else 0) for k in range(n)]
                after[i] = self.shuffle(rows[i], rows[i + step], low)
                after[i + step] = self.shuffle(rows[i], rows[i + step], high)
            rows, step = after, 2 * step
        return rows

    def _declared(self, name: str, result: ir.Type, args: Sequence[ir.Type]) -> ir.Function:
        module = self.function.module
        known = module.globals.get(name)
        return known or ir.Function(module, ir.FunctionType(result, args), name)


def _short(kind: ir.Type) -> str:
    return {FLOAT: "f32", DOUBLE: "f64"}.get(kind) or f"i{kind.width}"


def _align(kind: ir.Type) -> int:
    return 4 if kind == FLOAT else max(1, kind.width // 8)
