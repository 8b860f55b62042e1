"""Elementwise operations that compute the end of a tensor as they compute the rest.

Torch computes most numbers of a tensor in whole vectors, and the few that are left at the end of a loop one at a time,
by other functions of other last digits (Sleef's `exp` and the C library's, or a product and a sum in one). So for rows
smaller than a vector the digits depend on the place of the row. Here the numbers at the end are computed once more, as
a whole vector of their own, wherever an operation rounds more than once.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
VECTOR = 64
"""Numbers that torch computes in whole vectors on every CPU: two vectors of 512 bits, of the smallest kind."""
Run = Callable[..., Any]
"""`run(operation, args, kwargs)`: runs an operation, and records it."""
ONCE = frozenset(
    "_prelu_kernel _prelu_kernel_backward abs add alias all any bitwise_and bitwise_not bitwise_or bitwise_xor "
    "ceil clamp clamp_max clamp_min clone copysign detach div eq fill floor fmax fmin frexp ge gt hardshrink "
    "hardshrink_backward hardtanh hardtanh_backward heaviside isfinite isinf isnan isneginf isposinf le "
    "leaky_relu leaky_relu_backward logical_and logical_not logical_or logical_xor lt masked_fill maximum minimum "
    "mul nan_to_num native_dropout native_dropout_backward ne neg positive real reciprocal relu relu6 round rsqrt "
    "rsub sgn sign signbit softshrink_backward sqrt square sub threshold threshold_backward trunc where "
    "zeros_like".split()
)
"""Operations that round once, or in steps that are the same in vectors and beside them."""
UNTAGGED = frozenset(
    "_prelu_kernel _prelu_kernel_backward binary_cross_entropy binary_cross_entropy_backward elu_backward "
    "hardshrink_backward hardsigmoid_backward hardswish hardswish_backward hardtanh_backward huber_loss "
    "huber_loss_backward leaky_relu_backward masked_fill mish_backward mse_loss mse_loss_backward rsub "
    "smooth_l1_loss smooth_l1_loss_backward soft_margin_loss soft_margin_loss_backward softplus_backward "
    "softshrink_backward special_entr special_erf special_erfc special_i0e special_i1 special_i1e "
    "special_log_ndtr special_ndtri where".split()
)
"""Elementwise operations that torch does not tag so (2.13)."""
BY_LAYOUT = frozenset(["gelu", "gelu_backward"])
"""Operations that torch leaves to oneDNN where tensors are contiguous."""
PRODUCTS = (0, 1, 2)
"""Exponents of powers that are products."""


def rounds_twice(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether an operation is elementwise and may round otherwise in a vector than beside it."""
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
        return function._schema.name.partition("::")[2] == name and 0 in args[2:]  # else it returns one number
    return name not in ONCE


def compute_evenly(run: Run, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run an elementwise operation so that each number is computed within a whole vector."""
    if function._schema.is_mutable:
        name = function._schema.name.partition("::")[2].rstrip("_")
        found = compute_evenly(run, getattr(getattr(aten, name), function._overloadname), args, kwargs)
        return run(aten.copy_.default, (args[0], found), {})
    at = [i for i, x in enumerate(args) if isinstance(x, Tensor) and x.dim()]
    tensors = [args[i] for i in at]
    shape: torch.Size = torch.broadcast_shapes(*(x.shape for x in tensors))  # type: ignore[no-untyped-call]
    count, alike = prod(shape), _alike(tensors)
    whole = _run_length(tensors, shape) % VECTOR == 0
    by_layout = function._schema.name.partition("::")[2] in BY_LAYOUT
    if whole and (not by_layout or all(x.is_contiguous() for x in tensors)):
        return run(function, args, kwargs)
    given = list(args)
    if not alike:
        for i in at:
            wide = run(aten.expand.default, (args[i], list(shape)), {})
            given[i] = run(aten.clone.default, (wide,), {"memory_format": torch.contiguous_format})
    like = given[at[0]]
    order = sorted(range(like.dim()), key=like.stride, reverse=True)
    for i in at:
        given[i] = _flat(run, given[i], order)
    if count < VECTOR:
        for i in at:
            given[i] = run(aten.constant_pad_nd.default, (given[i], [0, VECTOR - count]), {})
    found = run(function, given, kwargs)
    if count < VECTOR:
        found = run(aten.slice.Tensor, (found, 0, 0, count), {})
    elif count % VECTOR:
        for i in at:
            given[i] = run(aten.slice.Tensor, (given[i], 0, count - VECTOR, count), {})
        last = run(aten.slice.Tensor, (found, 0, count - VECTOR, count), {})
        run(aten.copy_.default, (last, run(function, given, kwargs)), {})
    found = run(aten.view.default, (found, [shape[dim] for dim in order]), {})
    back = sorted(range(len(order)), key=order.__getitem__)
    return found if order == sorted(order) else run(aten.permute.default, (found, back), {})


def _flat(run: Run, x: Tensor, order: list[int]) -> Tensor:
    """Return all numbers of a tensor, as they lie in memory."""
    if order != sorted(order):
        x = run(aten.permute.default, (x, order), {})
    flat: Tensor = run(aten.view.default, (x, [-1]), {})
    return flat


def _alike(tensors: Sequence[Tensor]) -> bool:
    """Whether tensors lie alike in memory, without gaps."""
    first = tensors[0]
    size = 1
    for dim in sorted(range(first.dim()), key=lambda dim: (first.stride(dim), -dim)):
        if first.shape[dim] > 1 and first.stride(dim) != size:
            return False
        size *= first.shape[dim]
    return all(x.shape == first.shape and x.stride() == first.stride() for x in tensors)


def _run_length(tensors: Sequence[Tensor], shape: Sequence[int]) -> int:
    """Return how many numbers torch's innermost loop computes."""
    whole = [x.expand(shape) for x in tensors]
    dims = [dim for dim in range(len(shape)) if shape[dim] > 1]
    dims.sort(key=lambda dim: (max(x.stride(dim) for x in whole), -dim))
    if not dims:
        return prod(shape)
    if any(x.stride(dims[0]) not in (0, 1) for x in whole):
        return VECTOR  # it has no vectors at all
    count = shape[dims[0]]
    for inner, outer in pairwise(dims):
        if any(x.stride(outer) != x.stride(inner) * shape[inner] for x in whole):
            break
        count *= shape[outer]
    return count
