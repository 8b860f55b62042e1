"""Helper functions of fused kernels. The whole file is copied into each generated source."""

import math  # noqa: F401

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types  # type: ignore[attr-defined]  # noqa: F401
from numba.extending import intrinsic

BYTES, LONG = ir.IntType(8).as_pointer(), ir.IntType(64)
FLUSH = np.uint32(0x8040)  # x86: flush denormal results and inputs to zero


def pointer_to(kind):
    """Return a function that converts an address to a pointer to elements of a type."""

    @intrinsic
    def convert(context, address):
        def generate(target, builder, signature, arguments):
            return builder.inttoptr(arguments[0], target.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), generate

    return convert


@intrinsic
def take(context, counter):
    """Atomically increment the number at an address and return its previous value."""

    def generate(target, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], LONG.as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(LONG, 1), "monotonic")

    return types.int64(types.int64), generate


@intrinsic
def control(context):
    """Return the floating-point control register of this thread (x86)."""

    def generate(target, builder, signature, arguments):
        place = builder.alloca(ir.IntType(32))
        kind = ir.FunctionType(ir.VoidType(), [BYTES])
        read = builder.module.declare_intrinsic("llvm.x86.sse.stmxcsr", (), kind)
        builder.call(read, [builder.bitcast(place, BYTES)])
        return builder.load(place)

    return types.uint32(), generate


@intrinsic
def set_control(context, value):
    """Set the floating-point control register of this thread (x86)."""

    def generate(target, builder, signature, arguments):
        place = builder.alloca(ir.IntType(32))
        builder.store(arguments[0], place)
        kind = ir.FunctionType(ir.VoidType(), [BYTES])
        write = builder.module.declare_intrinsic("llvm.x86.sse.ldmxcsr", (), kind)
        builder.call(write, [builder.bitcast(place, BYTES)])
        return target.get_dummy_value()

    return types.void(types.uint32), generate


def same_bits(to):
    """Return a function that reinterprets the bits of a 32-bit value as another type."""

    @intrinsic
    def reinterpret(context, value):
        def generate(target, builder, signature, arguments):
            return builder.bitcast(arguments[0], target.get_value_type(signature.return_type))

        return to(value), generate

    return reinterpret


as_float, as_bits = same_bits(types.float32), same_bits(types.uint32)


@njit(inline="always")
def up(half):
    """Convert the bits of a bfloat16 to float32."""
    return as_float(np.uint32(np.uint32(half) << np.uint32(16)))


@njit(inline="always")
def down(value):
    """Round a float32 to the nearest bfloat16, ties to even, and return its bits."""
    bits = as_bits(value)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    return np.uint16(np.uint32(0x7FC0) if value != value else rounded)
