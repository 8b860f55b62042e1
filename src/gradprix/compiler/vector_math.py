"""Elementary functions of vectors of float32, in arithmetic that rounds equally everywhere."""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from .emitter import DOUBLE, FLOAT, INT, LONG, Emitter

LOG2E = 1.4426950408889634
ROUNDING = 1.5 * 2**23
"""A float32 whose last binary digit has the value 1: adding a number rounds it to an integer, which is in the low bits
of the sum."""
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4  # Cephes: the high part times any exponent is exact


def number(e: Emitter, x: float) -> Any:
    """Return a constant vector of float32."""
    return ir.Constant(e.vector(FLOAT), [ir.Constant(FLOAT, x)] * e.width)


def whole(e: Emitter, x: int) -> Any:
    """Return a constant vector of 32-bit integers."""
    return ir.Constant(e.vector(INT), [ir.Constant(INT, x)] * e.width)


def polynomial(e: Emitter, x: Any, coefficients: Sequence[float]) -> Any:
    """Return the value of a polynomial by Horner's rule; the coefficient of the highest power comes first."""
    total = number(e, coefficients[0])
    for each in coefficients[1:]:
        total = e.fma(total, x, number(e, each))
    return total


def exp(e: Emitter, x: Any) -> Any:
    """Return e^x: 2^n e^r with |r| ≤ ln 2 / 2 and a polynomial for e^r (Cephes, expf); subnormal results are zero."""
    b = e.b
    shifted = e.fma(x, number(e, LOG2E), number(e, ROUNDING))
    n = b.fsub(shifted, number(e, ROUNDING))
    r = e.fma(n, number(e, -LN2_HIGH), x)
    r = e.fma(n, number(e, -LN2_LOW), r)
    tail = polynomial(
        e,
        r,
        [1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1],
    )
    value = b.fadd(e.fma(tail, b.fmul(r, r), r), number(e, 1.0))
    integer = e.vector(INT)
    power = b.shl(b.bitcast(shifted, integer), whole(e, 23))  # moves n from the low bits to the exponent
    value = b.bitcast(b.add(b.bitcast(value, integer), power), e.vector(FLOAT))
    value = b.select(b.fcmp_ordered("<", x, number(e, -87.3365478515625)), number(e, 0.0), value)
    is_other = b.fcmp_unordered(">", x, number(e, 88.7228317260742))
    return b.select(is_other, b.fadd(x, number(e, float("inf"))), value)  # infinity, or NaN


def log(e: Emitter, x: Any) -> Any:
    """Return the natural logarithm, by a polynomial for the mantissa in [√½, √2) (Cephes, logf)."""
    b = e.b
    tiny = b.fcmp_ordered("<", x, number(e, 1.17549435e-38))
    scaled = b.select(tiny, b.fmul(x, number(e, 2.0**23)), x)
    bits = b.bitcast(scaled, e.vector(INT))
    exponent = b.sub(b.ashr(bits, whole(e, 23)), whole(e, 126))
    exponent = b.sub(exponent, b.select(tiny, whole(e, 23), whole(e, 0)))
    mantissa = b.bitcast(b.or_(b.and_(bits, whole(e, 0x7FFFFF)), whole(e, 0x3F000000)), e.vector(FLOAT))
    small = b.fcmp_ordered("<", mantissa, number(e, 0.707106781186547524))
    power = b.sitofp(b.sub(exponent, b.select(small, whole(e, 1), whole(e, 0))), e.vector(FLOAT))
    m = b.fsub(b.select(small, b.fadd(mantissa, mantissa), mantissa), number(e, 1.0))
    square = b.fmul(m, m)
    tail = polynomial(
        e,
        m,
        [
            7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
            -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
        ],
    )  # fmt: skip
    value = b.fmul(b.fmul(tail, m), square)
    value = e.fma(power, number(e, LN2_LOW), value)
    value = e.fma(number(e, -0.5), square, value)
    value = e.fma(power, number(e, LN2_HIGH), b.fadd(m, value))
    value = b.select(b.fcmp_ordered("==", x, number(e, float("inf"))), x, value)
    value = b.select(b.fcmp_ordered("==", x, number(e, 0.0)), number(e, float("-inf")), value)
    return b.select(b.fcmp_unordered("<", x, number(e, 0.0)), number(e, float("nan")), value)


def log1p(e: Emitter, x: Any) -> Any:
    """Return log(1 + x), with a correction for the rounding error of the sum."""
    b = e.b
    total = b.fadd(number(e, 1.0), x)
    rest = b.fsub(x, b.fsub(total, number(e, 1.0)))
    value = b.fadd(log(e, total), b.fdiv(rest, total))
    finite = b.fcmp_ordered("<", total, number(e, float("inf")))
    value = b.select(finite, value, total)
    return b.select(b.fcmp_ordered("==", x, number(e, -1.0)), number(e, float("-inf")), value)


def expm1(e: Emitter, x: Any) -> Any:
    """Return e^x - 1, by a Taylor polynomial for |x| < 0.5 and by `exp` otherwise."""
    b = e.b
    near = b.fcmp_ordered("<", e.intrinsic("fabs", x), number(e, 0.5))
    series = polynomial(e, x, [1 / 362880, 1 / 40320, 1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5])
    series = e.fma(series, b.fmul(x, x), x)
    return b.select(near, series, b.fsub(exp(e, x), number(e, 1.0)))


def tanh(e: Emitter, x: Any) -> Any:
    """Return the hyperbolic tangent, by a polynomial for |x| < 0.625 and by `exp` otherwise (Cephes, tanhf)."""
    b = e.b
    size = e.intrinsic("fabs", x)
    square = b.fmul(x, x)
    tail = polynomial(
        e,
        square,
        [-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1],
    )
    near = e.fma(b.fmul(tail, square), x, x)
    far = b.fsub(number(e, 1.0), b.fdiv(number(e, 2.0), b.fadd(exp(e, b.fadd(size, size)), number(e, 1.0))))
    return b.select(b.fcmp_ordered("<", size, number(e, 0.625)), near, e.intrinsic("copysign", far, x))


def sigmoid(e: Emitter, x: Any) -> Any:
    """Return 1 / (1 + e^-x)."""
    return e.b.fdiv(number(e, 1.0), e.b.fadd(number(e, 1.0), exp(e, e.b.fneg(x))))


def sin(e: Emitter, x: Any) -> Any:
    """Return the sine of an angle in radians."""
    return _rotated(e, x, 0)


def cos(e: Emitter, x: Any) -> Any:
    """Return the cosine of an angle in radians."""
    return _rotated(e, x, 1)


def _rotated(e: Emitter, x: Any, quarters: int) -> Any:
    """Return sin(x + quarters · π/2), by polynomials (Cephes, sinf and cosf).

    x is reduced to |r| ≤ π/4 in double precision, with π/2 as the sum of two doubles, which has more than 100 bits. For
    |x| ≥ 2^40, where adjacent float32 numbers are 10,000 turns apart, the result is NaN.
    """
    b, double, long = e.b, e.vector(DOUBLE), e.vector(LONG)
    wide = b.fpext(x, double)

    def constant(value: float) -> Any:
        return ir.Constant(double, [ir.Constant(DOUBLE, value)] * e.width)

    turns = e.intrinsic("rint", b.fmul(wide, constant(0.63661977236758134308)))
    r = e.fma(turns, constant(-1.57079632679489655800), wide)
    r = b.fptrunc(e.fma(turns, constant(-6.12323399573676603587e-17), r), e.vector(FLOAT))
    is_small = b.fcmp_ordered("<", e.intrinsic("fabs", wide), constant(2.0**40))
    bounded = b.select(is_small, turns, constant(0.0))
    quadrant = b.add(b.fptosi(bounded, long), ir.Constant(long, [LONG(quarters)] * e.width))
    square = b.fmul(r, r)
    sine = polynomial(e, square, [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1])
    sine = e.fma(b.fmul(sine, square), r, r)
    cosine = polynomial(e, square, [2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2])
    cosine = e.fma(b.fmul(cosine, square), square, e.fma(number(e, -0.5), square, number(e, 1.0)))

    def bit(mask: int) -> Any:
        return b.icmp_signed("!=", b.and_(quadrant, ir.Constant(long, [LONG(mask)] * e.width)), ir.Constant(long, None))

    value = b.select(bit(1), cosine, sine)
    value = b.select(bit(2), b.fneg(value), value)
    return b.select(is_small, value, number(e, float("nan")))


def erf(e: Emitter, x: Any) -> Any:
    """Return the error function, by a polynomial near zero (from N. Juffa's `erff`) and by 1 - p(|x|)^4 otherwise.

    The polynomial p approximates the fourth root of 1 - erf up to 3.92; its coefficients minimize the error of erf.
    """
    b = e.b
    size, square = e.intrinsic("fabs", x), b.fmul(x, x)
    bounded = b.select(b.fcmp_ordered("<", size, number(e, 3.92)), size, number(e, 3.92))
    root = polynomial(
        e,
        bounded,
        [
            -2.864640009647701e-5, 2.7794079505838454e-4, 1.0624885908327997e-4, -1.0247765108942986e-2,
            3.810492530465126e-2, -9.345325641334057e-3, -1.0042652487754822e-1, -2.901308238506317e-1,
            1.0014594793319702,
        ],
    )  # fmt: skip
    power = b.fmul(root, root)
    far = e.intrinsic("copysign", e.fma(b.fneg(power), power, number(e, 1.0)), x)
    near = polynomial(
        e,
        square,
        [-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1],
    )
    near = e.fma(near, x, x)
    return b.select(b.fcmp_ordered(">", size, number(e, 0.927734375)), far, near)
