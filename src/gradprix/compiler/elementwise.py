"""Lowerings of elementwise operations."""

from collections.abc import Callable
from typing import Any

import torch

from .builder import Builder, dtype_name
from .ir import UnsupportedError, Value
from .lowering import register

aten = torch.ops.aten
Operation = Callable[..., Value]
UNARY = [
    "neg", "abs", "exp", "log", "sqrt", "rsqrt", "reciprocal", "tanh", "erf", "sigmoid", "relu", "sign", "floor",
    "ceil", "log1p", "expm1", "square", "sin", "cos", "round", "trunc",
]  # fmt: skip
COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge"]
FRACTIONAL = {
    "div", "exp", "log", "sqrt", "rsqrt", "reciprocal", "tanh", "erf", "sigmoid", "log1p", "expm1", "sin", "cos",
}  # fmt: skip
"""Operations that return float32 even for integer operands."""
WHOLE = {"add", "sub", "mul", "maximum", "minimum", "neg", "abs", "remainder"}
"""Operations that are supported for integers."""


def to_value(b: Builder, x: Any, dtype: str = "float32") -> Value:
    """Convert a number to a value; values are returned unchanged.

    Args:
        b: the builder of the program.
        x: a number or value.
        dtype: type of a number that is not a float; floats become float32.
    """
    return x if isinstance(x, Value) else b.number(x, "float32" if isinstance(x, float) else dtype)


def common_dtype(*args: Any) -> str:
    """Return the type to which torch promotes the operands of an operation."""
    kinds = {x.dtype for x in args if isinstance(x, Value)}
    if kinds & {"uint8", "int32"}:  # computed as int64, then truncated to torch's type: the low bits agree
        kinds.add("int64")
    for kind in ("float32", "int64", "bool"):
        if kind in kinds:
            if kind != "float32" and any(isinstance(x, float) for x in args):
                return "float32"
            if kind == "bool" and any(isinstance(x, int) and not isinstance(x, bool) for x in args):
                return "int64"
            return kind
    return "float32"


def arithmetic(op: str) -> Operation:
    """Return the lowering of an arithmetic operation."""

    def run(b: Builder, *args: Any) -> Value:
        kind = "float32" if op in FRACTIONAL else common_dtype(*args)
        if kind != "float32" and (kind == "bool" or op not in WHOLE):
            raise UnsupportedError(f"{op} of {kind}")
        return b.pointwise(op, kind, *(to_value(b, x, kind) for x in args), operands=kind)

    return run


def comparison(op: str) -> Operation:
    """Return the lowering of a comparison."""

    def run(b: Builder, *args: Any) -> Value:
        kind = common_dtype(*args)
        return b.pointwise(op, "bool", *(to_value(b, x, kind) for x in args), operands=kind)

    return run


def _overloads(name: str) -> list[Any]:
    packet = getattr(aten, name)
    wanted = ("default", "Tensor", "Scalar")
    return [getattr(packet, each) for each in packet.overloads() if each in wanted]


for _name in UNARY:
    register(*_overloads(_name))(arithmetic(_name))
for _name in ("mul", "div", "maximum", "minimum"):
    register(*_overloads(_name))(arithmetic(_name))
for _name in COMPARISONS:
    register(*_overloads(_name))(comparison(_name))


def _sum_of_two(op: str) -> Operation:
    def run(b: Builder, x: Any, y: Any, alpha: float = 1) -> Value:
        first, second = to_value(b, x, common_dtype(x, y)), to_value(b, y, common_dtype(x, y))
        if alpha != 1:
            second = arithmetic("mul")(b, second, alpha)
        return arithmetic(op)(b, first, second)

    return run


register(*_overloads("add"))(_sum_of_two("add"))
register(*_overloads("sub"))(_sum_of_two("sub"))


@register(*_overloads("rsub"))
def _reversed_difference(b: Builder, x: Any, y: Any, alpha: float = 1) -> Value:
    first = x if alpha == 1 else arithmetic("mul")(b, x, alpha)
    return arithmetic("sub")(b, y, first)


@register(aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther, aten.where.Scalar)
def where(b: Builder, condition: Value, x: Any, y: Any) -> Value:
    """Return the elements of `x` where the condition is true, and of `y` elsewhere."""
    kind = common_dtype(x, y)
    yes, no = (b.convert(to_value(b, each, kind), kind) for each in (x, y))
    return b.pointwise("where", kind, b.convert(condition, "bool"), yes, no)


@register(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def _masked_fill(b: Builder, x: Value, mask: Value, value: Any) -> Value:
    return where(b, mask, b.convert(to_value(b, value, x.dtype), x.dtype), x)


@register(aten.threshold_backward.default)
def _threshold_backward(b: Builder, g: Value, x: Value, threshold: float) -> Value:
    return where(b, comparison("le")(b, x, float(threshold)), b.number(0.0, "float32"), g)


ROOTS = {0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}


@register(aten.pow.Tensor_Scalar)
def _power(b: Builder, x: Value, exponent: float) -> Value:
    times = arithmetic("mul")
    if exponent in ROOTS:
        return arithmetic(ROOTS[exponent])(b, x)
    if exponent == 1.5:
        return times(b, x, arithmetic("sqrt")(b, x))
    if exponent not in range(9):
        raise UnsupportedError(f"pow {exponent}")
    if exponent < 2:
        return x if exponent else b.number(1.0, x.dtype, x.shape)
    half = _power(b, x, exponent // 2)
    if exponent > 3:
        b.compute(half)
    square = times(b, half, half)
    return times(b, square, x) if exponent % 2 else square


@register(aten.remainder.Scalar, aten.remainder.Tensor)
def _remainder(b: Builder, x: Value, y: Any) -> Value:
    if common_dtype(x, y) == "float32" or not isinstance(y, int) or y == 0:
        raise UnsupportedError("this remainder")
    return arithmetic("remainder")(b, x, y)


@register(aten.clamp.default)
def _clamp(b: Builder, x: Value, low: Any = None, high: Any = None) -> Value:
    if low is not None:
        x = arithmetic("maximum")(b, x, low)
    return x if high is None else arithmetic("minimum")(b, x, high)


register(aten.clamp_min.default)(lambda b, x, low: _clamp(b, x, low))
register(aten.clamp_max.default)(lambda b, x, high: _clamp(b, x, None, high))


def _logical(op: str, is_bitwise: bool) -> Operation:
    def run(b: Builder, x: Value, y: Value) -> Value:
        if is_bitwise and (x.dtype, y.dtype) != ("bool", "bool"):
            raise UnsupportedError(f"bitwise {op} of numbers")
        return b.pointwise(op, "bool", x, y, operands="bool")

    return run


for _name in ("and", "or", "xor"):
    register(getattr(aten, f"bitwise_{_name}").Tensor)(_logical(_name, is_bitwise=True))
    register(getattr(aten, f"logical_{_name}").default)(_logical(_name, is_bitwise=False))


@register(aten.bitwise_not.default)
def _bitwise_not(b: Builder, x: Value) -> Value:
    return _logical("xor", is_bitwise=True)(b, x, b.number(True, "bool"))


@register(aten.logical_not.default)
def _logical_not(b: Builder, x: Value) -> Value:
    return _logical("xor", is_bitwise=False)(b, x, b.number(True, "bool"))


@register(aten._to_copy.default, *(getattr(aten.to, each) for each in ("dtype", "device", "dtype_layout", "other")))
def _to_copy(b: Builder, x: Value, *args: Any, dtype: torch.dtype | None = None, **_: Any) -> Value:
    kinds = [each for each in (*args, dtype) if isinstance(each, torch.dtype)]
    return b.convert(x, dtype_name(kinds[0])) if kinds else x
