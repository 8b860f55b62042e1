"""Reductions whose rounding does not depend on the other rows of a stack.

If the summed dimension is not the innermost in memory, `torch.sum` adds several columns at once. The order of additions
in full blocks of vectors differs from that in the remainder. If columns of several rows of a stack are adjacent, a
row's last digits then depend on its position and on the number of rows. A traced step therefore uses a custom operator
for such sums, and decomposes operations that contain them. All other reductions of torch compute each output element
separately.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from gradprix.kernels import column_sums

aten = torch.ops.aten
WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
"""Maps dtypes to the wider dtypes in which their sums are accumulated."""

_library: Any = torch.library.Library("gradprix", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("column_sums(Tensor x) -> Tensor")
_library.impl("column_sums", column_sums, "CPU")
torch.library.register_fake("gradprix::column_sums", lambda x: x.new_empty(x.shape[0], x.shape[2]), lib=_library)


def _sums_of_rows(x: Tensor) -> Tensor:
    return x.contiguous().sum(1)


_library.define("sums_of_rows(Tensor x) -> Tensor")
_library.impl("sums_of_rows", _sums_of_rows, "CompositeExplicitAutograd")


def sums_of_rows(x: Tensor) -> Tensor:
    """Return `x.sum(1)` of a tensor `x [rows, batch, features]`.

    Torch's sum is row-invariant in this case, since no block of columns extends over two rows.
    """
    sums: Tensor = torch.ops.gradprix.sums_of_rows(x)
    return sums


def has_fixed_order(x: Tensor, dims: Sequence[int] | None) -> bool:
    """Return True if the order in which `torch.sum` computes each output element depends only on the reduced sizes.

    `torch.sum` merges dimensions that are contiguous in memory. It then iterates over the reduced dimensions first,
    innermost first, in blocks of two dimensions (ATen, `TensorIterator`, `cascade_sum`). A block therefore contains
    outputs of several rows only if the reduced dimensions merge into one and another dimension has a smaller stride.

    Args:
        x: input tensor.
        dims: dimensions to reduce; all dimensions when None or empty.
    """
    if x.device.type != "cpu" or not (x.is_floating_point() or x.is_complex()) or x.numel() == 0:
        return True
    summed, others = _split(x, dims)
    if not summed or not others:
        return True
    strides = x.stride()
    if any(strides[dim] == 0 for dim in (*summed, *others)):
        return False
    inner = summed[-1]
    merged = x.shape[inner]
    for dim in summed[-2::-1]:
        if strides[dim] != strides[inner] * merged:
            return True
        merged *= x.shape[dim]
    return strides[inner] < min(strides[dim] for dim in others)


def ordered_sum(
    x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Compute `torch.sum` with additions in a fixed order, so that stacked models get the same bits as a single model.

    The order of the additions for an output element depends on the sizes of the summed dimensions alone, not on the
    sizes of the other dimensions.
    """
    x = x if dtype is None else x.to(dtype)
    if has_fixed_order(x, dims):
        result: Tensor = aten.sum.dim_IntList(x, dims, keepdim)
        return result
    if x.is_complex():
        parts = torch.view_as_real(x.resolve_conj())
        return torch.view_as_complex(ordered_sum(parts, _normalize_dims(x, dims), keepdim).contiguous())
    if x.dtype in WIDER:
        return ordered_sum(x.to(WIDER[x.dtype]), dims, keepdim).to(x.dtype)
    summed, others = _split(x, dims)
    order = sorted((*summed, *others), key=x.stride, reverse=True)
    first = next(i for i, dim in enumerate(order) if dim in summed)
    if order[first : first + len(summed)] != [dim for dim in order if dim in summed]:
        order = [*others, *summed]  # the summed elements are not adjacent in memory: copy them
        first = len(others)
    last = first + len(summed)
    sizes = [x.shape[dim] for dim in order]
    shape = prod(sizes[:first]), prod(sizes[first:last]), prod(sizes[last:])
    ones = [dim for dim in range(x.dim()) if dim not in order]
    total: Tensor = torch.ops.gradprix.column_sums(x.permute(*order, *ones).reshape(shape))
    kept_dims = order[:first] + order[last:]  # in memory order
    rest = [dim for dim in range(x.dim()) if dim not in kept_dims and (keepdim or dim not in _normalize_dims(x, dims))]
    total = total.view(*(x.shape[dim] for dim in kept_dims), *[1] * len(rest))
    dim_order = [*kept_dims, *rest]
    return total.permute([dim_order.index(dim) for dim in sorted(dim_order)])


def _ordered_mean(
    x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    count = prod(x.shape[dim] for dim in _normalize_dims(x, dims))
    kind = dtype or x.dtype
    return (ordered_sum(x, dims, keepdim, dtype=WIDER.get(kind, kind)) / count).to(kind)


def _ordered_logsumexp(x: Tensor, dims: Sequence[int], keepdim: bool = False) -> Tensor:
    largest = x.amax(list(dims), True)
    largest = torch.where(largest.abs() == float("inf"), 0, largest)
    total = ordered_sum((x - largest).exp(), dims, True).log() + largest
    return total if keepdim else total.squeeze(tuple(_normalize_dims(x, dims)))


def _ordered_nansum(
    x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    return ordered_sum(torch.where(x.isnan(), 0, x), dims, keepdim, dtype=dtype)


def _convolution_backward(g: Tensor, x: Tensor, weight: Tensor, bias_sizes: Any, *args: Any) -> Any:
    """Compute `aten.convolution_backward` with `ordered_sum` for the gradient of the bias."""
    *given, mask = args
    grads = aten.convolution_backward.default(g, x, weight, None, *given, [*mask[:2], False])
    bias = ordered_sum(g, [0, *range(2, g.dim())]) if mask[2] else None
    return grads[0], grads[1], bias


def _batch_norm_backward(
    g: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    save_mean: Tensor | None,
    save_invstd: Tensor | None,
    train: bool,
    eps: float,
    mask: Sequence[bool],
) -> Any:
    """Compute `aten.native_batch_norm_backward` in operations that round only once.

    Torch's version rounds differently in the remainder: the last channels, which do not fill a vector.
    """
    dims, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
    count = x.numel() / max(1, x.shape[1])
    center, scale = (save_mean, save_invstd) if train else (mean, None if var is None else (var + eps).rsqrt())
    assert center is not None
    assert scale is not None
    centered = x - center.view(shape)
    total, product = ordered_sum(g, dims), ordered_sum(g * centered, dims)
    slope = scale if weight is None else scale * weight
    g_x = g
    if mask[0] and train:
        g_x = centered.mul_((product * scale * scale / count).view(shape))
        g_x = torch.sub(g, g_x, out=g_x).sub_((total / count).view(shape))
    return g_x * slope.view(shape) if mask[0] else None, product * scale if mask[1] else None, total


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    value, gate = x.chunk(2, dim)
    return value * gate.sigmoid()


def _glu_backward(g: Tensor, x: Tensor, dim: int) -> Tensor:
    value, gate = x.chunk(2, dim)
    share = gate.sigmoid()
    inner = g * share
    return torch.cat([inner, inner * value * (1 - share)], dim)


def _log_sigmoid_backward(g: Tensor, x: Tensor, buffer: Tensor) -> Tensor:
    small = x.abs().neg().exp()
    share = small / (1 + small)
    return g * torch.where(x < 0, 1 - share, share)


ORDERED: dict[Any, Callable[..., Any]] = {
    aten.sum.dim_IntList: ordered_sum,
    aten.mean.dim: _ordered_mean,
    aten.nansum.default: _ordered_nansum,
    aten.logsumexp.default: _ordered_logsumexp,
    aten.convolution_backward.default: _convolution_backward,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
    aten.glu.default: _glu,
    aten.glu_backward.default: _glu_backward,
    aten.log_sigmoid_backward.default: _log_sigmoid_backward,
}
"""Replacements, in a traced step, of operations that may compute several rows at once."""
SUMS = frozenset([aten.sum.dim_IntList, aten.mean.dim, aten.nansum.default, aten.logsumexp.default])
"""Operations among `ORDERED` whose arguments are a tensor and dimensions."""


def ordered(function: Any, args: Sequence[Any], dtype: torch.dtype | None = None) -> Callable[..., Any] | None:
    """Return the replacement of an operation, or None if the operation is row-invariant for these arguments.

    Args:
        function: the operation.
        args: its positional arguments.
        dtype: the requested dtype of the result.
    """
    replacement = ORDERED.get(function)
    if replacement is None:
        return None
    if function not in SUMS:
        is_row_invariant = args[0].device.type != "cpu" or (
            function is aten.convolution_backward.default and not args[-1][2]
        )
    else:
        is_row_invariant = dtype in (None, args[0].dtype) and has_fixed_order(
            args[0], args[1] if len(args) > 1 else None
        )
    return None if is_row_invariant else replacement


def _normalize_dims(x: Tensor, dims: Sequence[int] | None) -> list[int]:
    return [dim % x.dim() for dim in dims] if dims else [*range(x.dim())]


def _split(x: Tensor, dims: Sequence[int] | None) -> tuple[list[int], list[int]]:
    """Return the reduced and the remaining dimensions of more than one element, each with the innermost last."""
    order = sorted((dim for dim in range(x.dim()) if x.shape[dim] > 1), key=x.stride, reverse=True)
    chosen = set(_normalize_dims(x, dims))
    return [dim for dim in order if dim in chosen], [dim for dim in order if dim not in chosen]
