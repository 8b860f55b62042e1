"""Emission of code that computes the elements of expressions, one vector at a time."""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from . import vector_math
from .emitter import BIT, FLOAT, INT, LONG, SIZES, TYPES, Emitter
from .ir import Node, View

FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(vector_math, name)
    for name in ("exp", "log", "log1p", "expm1", "tanh", "sigmoid", "erf", "sin", "cos")
}
ORDERED = {"eq": "==", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
Places = dict[View, tuple[Any, int]]
"""Maps each view to its base address and its offset in elements."""


class Elements:
    """Emits code that computes, loads and stores elements.

    Args:
        e: the emitter.
        places: base address and offset of each view.
        inner: the vectorized dimension.
    """

    def __init__(self, e: Emitter, places: Places, inner: int) -> None:
        self.e, self.places, self.inner = e, places, inner

    def compute(self, node: Node, indices: Sequence[Any], count: int) -> Any:
        """Emit the computation of a vector of elements and return it.

        Args:
            node: the expression.
            indices: the indices of the first element.
            count: number of elements along the inner dimension.
        """
        e, b = self.e, self.e.b
        if node.op == "number":
            kind = e.vector(BIT if node.dtype == "bool" else TYPES[node.dtype])
            value = float(node.number) if node.dtype == "float32" else int(node.number)
            return ir.Constant(kind, [ir.Constant(kind.element, value)] * e.width)
        if node.op == "view":
            assert node.view is not None
            return self.load(node.view, indices, count, node.dtype)
        if node.op == "gather":
            return self._gather(node, indices, count)
        args = [self.compute(each, indices, count) for each in node.args]
        kind = node.args[0].dtype
        if node.op == "convert":
            return self._convert(args[0], kind, node.dtype)
        if node.op == "where":
            return b.select(*args)
        if node.op in ("and", "or", "xor"):
            return {"and": b.and_, "or": b.or_, "xor": b.xor}[node.op](*args)
        if node.op == "bound":
            below = b.icmp_unsigned("<", *args)
            return b.select(below, *args)
        if node.op in ORDERED or node.op == "ne":
            if kind == "float32":
                return b.fcmp_unordered("!=", *args) if node.op == "ne" else b.fcmp_ordered(ORDERED[node.op], *args)
            compare = b.icmp_unsigned if kind == "bool" else b.icmp_signed  # a true bit is -1 as a signed number
            return compare(ORDERED.get(node.op, "!="), *args)
        if kind == "int64":
            return self._integer_arithmetic(node.op, *args)
        return self.arithmetic(node.op, *args)

    def _integer_arithmetic(self, op: str, *args: Any) -> Any:
        """Emit an operation on vectors of int64 and return the result."""
        b = self.e.b
        match op:
            case "maximum" | "minimum":
                return b.select(b.icmp_signed(">" if op == "maximum" else "<", *args), *args)
            case "neg" | "abs":
                opposite = b.neg(args[0])
                is_negative = b.icmp_signed("<", args[0], ir.Constant(args[0].type, None))
                return opposite if op == "neg" else b.select(is_negative, opposite, args[0])
            case "remainder":  # has the sign of the divisor, as in torch
                rest = b.srem(*args)
                zero = ir.Constant(rest.type, None)
                differs = b.icmp_signed("<", b.xor(rest, args[1]), zero)
                is_other = b.and_(b.icmp_signed("!=", rest, zero), differs)
                return b.add(rest, b.select(is_other, args[1], zero))
        return {"add": b.add, "sub": b.sub, "mul": b.mul}[op](*args)

    def arithmetic(self, op: str, *args: Any) -> Any:
        """Emit an operation on vectors of float32 and return the result."""
        e, b = self.e, self.e.b
        one = vector_math.number(e, 1.0)
        match op:
            case "add":
                return b.fadd(*args)
            case "sub":
                return b.fsub(*args)
            case "mul":
                return b.fmul(*args)
            case "div":
                return b.fdiv(*args)
            case "square":
                return b.fmul(args[0], args[0])
            case "maximum" | "minimum":  # propagates NaN, as torch does
                keep = b.fcmp_ordered(">" if op == "maximum" else "<", *args)
                is_nan = b.fcmp_unordered("uno", args[0], args[0])
                return b.select(b.or_(keep, is_nan), *args)
            case "relu":
                zero = vector_math.number(e, 0.0)
                return b.select(b.fcmp_ordered("<=", args[0], zero), zero, args[0])
            case "neg":
                return b.fneg(args[0])
            case "abs":
                return e.intrinsic("fabs", args[0])
            case "sqrt" | "floor" | "ceil" | "trunc":
                return e.intrinsic(op, args[0])
            case "round":
                return e.intrinsic("rint", args[0])  # half to even, as in torch
            case "rsqrt":
                return b.fdiv(one, e.intrinsic("sqrt", args[0]))
            case "reciprocal":
                return b.fdiv(one, args[0])
            case "sign":
                zero = vector_math.number(e, 0.0)
                up = b.select(b.fcmp_ordered(">", args[0], zero), one, zero)
                return b.fsub(up, b.select(b.fcmp_ordered("<", args[0], zero), one, zero))
        return FUNCTIONS[op](e, *args)

    def _convert(self, x: Any, kind: str, wanted: str) -> Any:
        e, b = self.e, self.e.b
        match kind, wanted:
            case "bfloat16", _:  # computed as float32
                return x if wanted in ("float32", "bfloat16") else self._convert(x, "float32", wanted)
            case _, "bfloat16":
                return self._round_to_bfloat16(x if kind == "float32" else self._convert(x, kind, "float32"))
            case "float32", "bool":
                return b.fcmp_unordered("!=", x, vector_math.number(e, 0.0))
            case _, "bool":
                return b.icmp_signed("!=", x, ir.Constant(x.type, None))
            case "bool" | "uint8", "float32":
                return b.uitofp(x, e.vector(FLOAT))
            case _, "float32":
                return b.sitofp(x, e.vector(FLOAT))
            case "float32", "int64":
                return b.fptosi(x, e.vector(LONG))
            case "float32", _:
                return b.trunc(b.fptosi(x, e.vector(LONG)), e.vector(TYPES[wanted]))
        before, after = (1 if each == "bool" else SIZES[each] * 8 for each in (kind, wanted))
        if before > after:
            return b.trunc(x, e.vector(TYPES[wanted]))
        return (b.zext if kind in ("bool", "uint8") else b.sext)(x, e.vector(TYPES[wanted]))

    def load(self, view: View, indices: Sequence[Any], count: int, dtype: str) -> Any:
        """Load a vector of `count` elements of a view, the first one at `indices`."""
        e, kind, stride = self.e, TYPES[dtype], view.strides[self.inner]
        if view.buffer is None:
            first = e.broadcast(e.offset(indices, view.strides, view.offset))
            return e.b.add(first, ir.Constant(e.vector(LONG), [LONG(i * stride) for i in range(e.width)]))
        base, start = self.places[view]
        offset = e.offset(indices, view.strides, start)
        if stride == 1:
            vector = e.load_vector(base, offset, kind, count)
        elif stride == 0:
            vector = e.broadcast(e.load(base, offset, kind))
        else:
            vector = ir.Constant(e.vector(kind), None)
            for lane in range(count):
                element = e.load(base, e.b.add(offset, LONG(lane * stride)), kind)
                vector = e.insert(vector, element, lane)
        return self._loaded(vector, dtype)

    def _loaded(self, vector: Any, dtype: str) -> Any:
        """Convert a vector as it is in memory to that in which elements are computed."""
        e, b = self.e, self.e.b
        if dtype == "bool":
            return b.icmp_signed("!=", vector, ir.Constant(vector.type, None))
        if dtype == "bfloat16":
            upper_half = b.shl(b.zext(vector, e.vector(INT)), self._integers(16))
            return b.bitcast(upper_half, e.vector(FLOAT))
        return vector

    def _round_to_bfloat16(self, x: Any) -> Any:
        """Round float32 numbers to the nearest ones that bfloat16 has; ties go to even ones, as in torch."""
        e, b, whole = self.e, self.e.b, self._integers
        bits = b.bitcast(x, e.vector(INT))
        is_odd = b.and_(b.lshr(bits, whole(16)), whole(1))
        rounded = b.and_(b.add(bits, b.add(is_odd, whole(0x7FFF))), whole(-0x10000))
        is_nan = b.fcmp_unordered("uno", x, x)
        return b.bitcast(b.select(is_nan, whole(0x7FC00000), rounded), e.vector(FLOAT))

    def _integers(self, value: int) -> ir.Constant:
        return ir.Constant(self.e.vector(INT), [ir.Constant(INT, value)] * self.e.width)

    def _gather(self, node: Node, indices: Sequence[Any], count: int) -> Any:
        e, (index,), view = self.e, node.args, node.view
        assert view is not None
        kind, stride = TYPES[node.dtype], view.strides[self.inner]
        base, start = self.places[view]
        offset = e.offset(indices, view.strides, start)
        entries = self.compute(index, indices, count)
        if all(each.strides[self.inner] == 0 for each in index.views()) and stride in (0, 1):
            entry = e.b.mul(e.extract(entries, 0), LONG(int(node.number)))
            offset = e.b.add(offset, entry)
            vector = e.load_vector(base, offset, kind, count) if stride else e.broadcast(e.load(base, offset, kind))
        else:
            vector = ir.Constant(e.vector(kind), None)
            for lane in range(count):
                entry = e.b.mul(e.extract(entries, lane), LONG(int(node.number)))
                element = e.load(base, e.b.add(e.b.add(offset, entry), LONG(lane * stride)), kind)
                vector = e.insert(vector, element, lane)
        return self._loaded(vector, node.dtype)

    def store(self, value: Any, out: View, indices: Sequence[Any], count: int) -> None:
        """Store the first `count` elements of a vector in a view, the first one at `indices`."""
        e = self.e
        assert out.buffer is not None
        kind = TYPES[out.buffer.dtype]
        if out.buffer.dtype == "bool":
            value = e.b.zext(value, e.vector(kind))
        elif out.buffer.dtype == "bfloat16":
            value = e.b.trunc(e.b.lshr(e.b.bitcast(value, e.vector(INT)), self._integers(16)), e.vector(kind))
        base, start = self.places[out]
        offset = e.offset(indices, out.strides, start)
        if out.strides[self.inner] == 1 or count == 1:
            e.store_vector(value, base, offset, kind, count)
            return
        for lane in range(count):
            where = e.b.add(offset, LONG(lane * out.strides[self.inner]))
            e.store(e.extract(value, lane), base, where, kind)
