"""Elementwise operations that round all elements of a tensor in the same way.

Torch computes most elements of a tensor in full SIMD vectors and the remainder one by one, with other functions that
round differently (Sleef's `exp` instead of the C library's, or a fused multiply-add). If rows are smaller than a
vector, the last digits of a row's results then depend on its position in the stack. To avoid this, operations that
round more than once compute the remainder again as a full vector.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor

from gradprix.compiler import out_of_place_version

aten = torch.ops.aten
VECTOR = 64
"""Number of elements that torch computes in full vectors, without a remainder, on every CPU: two 512-bit vectors of the
smallest floating-point dtype."""
Run = Callable[..., Any]
"""`run(operation, args, kwargs)`: runs an operation and records it."""
ROUNDS_ONCE = frozenset(
    "_prelu_kernel _prelu_kernel_backward abs add alias all any bitwise_and bitwise_not bitwise_or bitwise_xor "
    "ceil clamp clamp_max clamp_min clone copysign detach div eq fill floor fmax fmin frexp ge gt hardshrink "
    "hardshrink_backward hardtanh hardtanh_backward heaviside isfinite isinf isnan isneginf isposinf le "
    "leaky_relu leaky_relu_backward logical_and logical_not logical_or logical_xor lt masked_fill maximum minimum "
    "mul nan_to_num native_dropout native_dropout_backward ne neg positive real reciprocal relu relu6 round rsqrt "
    "rsub sgn sign signbit softshrink_backward sqrt square sub threshold threshold_backward trunc where "
    "zeros_like".split()
)
"""Operations that round once, or identically in vector and scalar code."""
UNTAGGED = frozenset(
    "_prelu_kernel _prelu_kernel_backward binary_cross_entropy binary_cross_entropy_backward elu_backward "
    "hardshrink_backward hardsigmoid_backward hardswish hardswish_backward hardtanh_backward huber_loss "
    "huber_loss_backward leaky_relu_backward masked_fill mish_backward mse_loss mse_loss_backward rsub "
    "smooth_l1_loss smooth_l1_loss_backward soft_margin_loss soft_margin_loss_backward softplus_backward "
    "softshrink_backward special_entr special_erf special_erfc special_i0e special_i1 special_i1e "
    "special_log_ndtr special_ndtri where".split()
)
"""Elementwise operations that torch does not tag as pointwise (2.13)."""
BY_LAYOUT = frozenset(["gelu", "gelu_backward"])
"""Operations that torch delegates to oneDNN for contiguous tensors."""
PRODUCTS = (0, 1, 2)
"""Exponents for which torch computes a power as a product."""


def rounds_twice(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Return True for elementwise operations that may round differently in vector and scalar code."""
    name = function._schema.name.partition("::")[2].rstrip("_")
    if torch.Tag.nondeterministic_seeded in function.tags:
        return False
    if torch.Tag.pointwise not in function.tags and name not in UNTAGGED:
        return False
    tensors = [x for x in args if isinstance(x, Tensor)]
    if not tensors or any(x.device.type != "cpu" or x.is_complex() for x in tensors):
        return False
    if name in ("add", "sub", "rsub"):
        alpha = kwargs.get("alpha", args[2] if len(args) > 2 else 1)
        return alpha != 1 and any(x.is_floating_point() for x in tensors)
    if name == "pow":
        return not (isinstance(args[1], int | float) and args[1] in PRODUCTS)
    if name in ("mse_loss", "huber_loss", "smooth_l1_loss", "soft_margin_loss", "binary_cross_entropy"):
        return function._schema.name.partition("::")[2] == name and 0 in args[2:]  # 0: no reduction
    return name not in ROUNDS_ONCE


def compute_evenly(run: Run, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run an elementwise operation so that every element is computed in a full vector.

    Tensors with fewer than `VECTOR` elements are padded. Otherwise, the last `VECTOR` elements are computed twice.

    Args:
        run: runs an operation and records it.
        function: the operation.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """
    if function._schema.is_mutable:
        result = compute_evenly(run, out_of_place_version(function), args, kwargs)
        return run(aten.copy_.default, (args[0], result), {})
    positions = [i for i, x in enumerate(args) if isinstance(x, Tensor) and x.dim()]
    tensors = [args[i] for i in positions]
    shape: torch.Size = torch.broadcast_shapes(*(x.shape for x in tensors))  # type: ignore[no-untyped-call]
    count, same_layout = prod(shape), _have_same_layout(tensors)
    has_full_vectors = _run_length(tensors, shape) % VECTOR == 0
    by_layout = function._schema.name.partition("::")[2] in BY_LAYOUT
    if has_full_vectors and (not by_layout or all(x.is_contiguous() for x in tensors)):
        return run(function, args, kwargs)
    inputs = list(args)
    if not same_layout:
        for i in positions:
            wide = run(aten.expand.default, (args[i], list(shape)), {})
            inputs[i] = run(aten.clone.default, (wide,), {"memory_format": torch.contiguous_format})
    like = inputs[positions[0]]
    order = sorted(range(like.dim()), key=like.stride, reverse=True)
    for i in positions:
        inputs[i] = _flat(run, inputs[i], order)
    if count < VECTOR:
        for i in positions:
            inputs[i] = run(aten.constant_pad_nd.default, (inputs[i], [0, VECTOR - count]), {})
    result = run(function, inputs, kwargs)
    if count < VECTOR:
        result = run(aten.slice.Tensor, (result, 0, 0, count), {})
    elif count % VECTOR:
        for i in positions:
            inputs[i] = run(aten.slice.Tensor, (inputs[i], 0, count - VECTOR, count), {})
        last = run(aten.slice.Tensor, (result, 0, count - VECTOR, count), {})
        run(aten.copy_.default, (last, run(function, inputs, kwargs)), {})
    result = run(aten.view.default, (result, [shape[dim] for dim in order]), {})
    back = sorted(range(len(order)), key=order.__getitem__)
    return result if order == sorted(order) else run(aten.permute.default, (result, back), {})


def _flat(run: Run, x: Tensor, order: list[int]) -> Tensor:
    """Flatten a dense tensor in memory order; `order` lists its dimensions, outermost first."""
    if order != sorted(order):
        x = run(aten.permute.default, (x, order), {})
    flat: Tensor = run(aten.view.default, (x, [-1]), {})
    return flat


def _have_same_layout(tensors: Sequence[Tensor]) -> bool:
    """Return True if tensors have the same dense memory layout."""
    first = tensors[0]
    size = 1
    for dim in sorted(range(first.dim()), key=lambda dim: (first.stride(dim), -dim)):
        if first.shape[dim] > 1 and first.stride(dim) != size:
            return False
        size *= first.shape[dim]
    return all(x.shape == first.shape and x.stride() == first.stride() for x in tensors)


def _run_length(tensors: Sequence[Tensor], shape: Sequence[int]) -> int:
    """Return the number of elements in torch's innermost loop over tensors that are broadcast to `shape`."""
    expanded = [x.expand(shape) for x in tensors]
    dims = [dim for dim in range(len(shape)) if shape[dim] > 1]
    dims.sort(key=lambda dim: (max(x.stride(dim) for x in expanded), -dim))
    if not dims:
        return prod(shape)
    if any(x.stride(dims[0]) not in (0, 1) for x in expanded):
        return VECTOR  # torch uses no vectors for other strides
    count = shape[dims[0]]
    for inner, outer in pairwise(dims):
        if any(x.stride(outer) != x.stride(inner) * shape[inner] for x in expanded):
            break
        count *= shape[outer]
    return count
