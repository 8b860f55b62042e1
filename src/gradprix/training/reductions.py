"""Reductions whose rounding does not depend on the other rows of a stack.

`torch.sum` adds up several columns at once where the dimension that it sums over is not the innermost in memory, and in
another order in a full block of vectors than beside it. If the columns of several rows lie side by side, a row's last
digits then depend on its place and on the number of rows. So a recorded step has such sums as an operation of our own,
and operations that contain such sums taken apart. All other reductions of torch compute each result by itself.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from gradprix.kernels import column_sums

aten = torch.ops.aten
WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
"""What sums are computed in, where it is another dtype than that of the numbers."""

_library: Any = torch.library.Library("gradprix", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("column_sums(Tensor x) -> Tensor")
_library.impl("column_sums", column_sums, "CPU")
torch.library.register_fake("gradprix::column_sums", lambda x: x.new_empty(x.shape[0], x.shape[2]), lib=_library)


def _sums_of_rows(x: Tensor) -> Tensor:
    return x.contiguous().sum(1)


_library.define("sums_of_rows(Tensor x) -> Tensor")
_library.impl("sums_of_rows", _sums_of_rows, "CompositeExplicitAutograd")


def sums_of_rows(x: Tensor) -> Tensor:
    """Return `x.sum(1)` of `x [rows, batch, features]`, as torch adds up: no block of columns has two rows' here."""
    found: Tensor = torch.ops.gradprix.sums_of_rows(x)
    return found


def has_fixed_order(x: Tensor, dims: Sequence[int] | None) -> bool:
    """Whether `torch.sum` adds up each result by itself, in an order that depends on the summed sizes alone.

    It iterates over the summed dimensions first, the innermost of them first, and over two dimensions at once, after it
    has merged those that are one in memory (ATen, `TensorIterator`, `cascade_sum`). So a block has results of several
    rows only if there is but one summed dimension, and the innermost of the other dimensions lies within it.

    Args:
        x: the numbers.
        dims: to sum over; all when None or empty.
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
    """Return what `torch.sum` returns, each result added up by itself."""
    x = x if dtype is None else x.to(dtype)
    if has_fixed_order(x, dims):
        found: Tensor = aten.sum.dim_IntList(x, dims, keepdim)
        return found
    if x.is_complex():
        parts = torch.view_as_real(x.resolve_conj())
        return torch.view_as_complex(ordered_sum(parts, _positive(x, dims), keepdim).contiguous())
    if x.dtype in WIDER:
        return ordered_sum(x.to(WIDER[x.dtype]), dims, keepdim).to(x.dtype)
    summed, others = _split(x, dims)
    order = sorted((*summed, *others), key=x.stride, reverse=True)
    first = next(i for i, dim in enumerate(order) if dim in summed)
    if order[first : first + len(summed)] != [dim for dim in order if dim in summed]:
        order = [*others, *summed]  # what is summed is not together in memory: copy it
        first = len(others)
    last = first + len(summed)
    sizes = [x.shape[dim] for dim in order]
    shape = prod(sizes[:first]), prod(sizes[first:last]), prod(sizes[last:])
    ones = [dim for dim in range(x.dim()) if dim not in order]
    total: Tensor = torch.ops.gradprix.column_sums(x.permute(*order, *ones).reshape(shape))
    left = order[:first] + order[last:]  # in the order of memory
    rest = [dim for dim in range(x.dim()) if dim not in left and (keepdim or dim not in _positive(x, dims))]
    total = total.view(*(x.shape[dim] for dim in left), *[1] * len(rest))
    places = [*left, *rest]
    return total.permute([places.index(dim) for dim in sorted(places)])


def _ordered_mean(
    x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    count = prod(x.shape[dim] for dim in _positive(x, dims))
    kind = dtype or x.dtype
    return (ordered_sum(x, dims, keepdim, dtype=WIDER.get(kind, kind)) / count).to(kind)


def _ordered_logsumexp(x: Tensor, dims: Sequence[int], keepdim: bool = False) -> Tensor:
    largest = x.amax(list(dims), True)
    largest = torch.where(largest.abs() == float("inf"), 0, largest)
    total = ordered_sum((x - largest).exp(), dims, True).log() + largest
    return total if keepdim else total.squeeze(tuple(_positive(x, dims)))


def _ordered_nansum(
    x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    return ordered_sum(torch.where(x.isnan(), 0, x), dims, keepdim, dtype=dtype)


def _convolution_backward(g: Tensor, x: Tensor, weight: Tensor, bias_sizes: Any, *args: Any) -> Any:
    """Sum up the gradient of the biases apart from the others."""
    *given, mask = args
    found = aten.convolution_backward.default(g, x, weight, None, *given, [*mask[:2], False])
    bias = ordered_sum(g, [0, *range(2, g.dim())]) if mask[2] else None
    return found[0], found[1], bias


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
    """Return the gradients of a batch norm, in operations that round once each.

    Torch rounds otherwise in the last channels, which do not fill a vector.
    """
    over, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
    count = x.numel() / max(1, x.shape[1])
    center, scale = (save_mean, save_invstd) if train else (mean, None if var is None else (var + eps).rsqrt())
    assert center is not None
    assert scale is not None
    centered = x - center.view(shape)
    total, product = ordered_sum(g, over), ordered_sum(g * centered, over)
    slope = scale if weight is None else scale * weight
    found = g
    if mask[0] and train:
        found = centered.mul_((product * scale * scale / count).view(shape))
        found = torch.sub(g, found, out=found).sub_((total / count).view(shape))
    return found * slope.view(shape) if mask[0] else None, product * scale if mask[1] else None, total


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
"""What a recorded step has in the place of operations that may compute several rows at once."""
SUMS = frozenset([aten.sum.dim_IntList, aten.mean.dim, aten.nansum.default, aten.logsumexp.default])
"""Those of them that take what is summed and the dimensions."""


def ordered(function: Any, args: Sequence[Any], dtype: torch.dtype | None = None) -> Callable[..., Any] | None:
    """Return what takes the place of an operation on these arguments, or None if it can stay.

    Args:
        function: the operation.
        args: its arguments by place.
        dtype: what it is asked to compute in.
    """
    ours = ORDERED.get(function)
    if ours is None:
        return None
    if function not in SUMS:
        can_stay = args[0].device.type != "cpu" or (function is aten.convolution_backward.default and not args[-1][2])
    else:
        can_stay = dtype in (None, args[0].dtype) and has_fixed_order(args[0], args[1] if len(args) > 1 else None)
    return None if can_stay else ours


def _positive(x: Tensor, dims: Sequence[int] | None) -> list[int]:
    return [dim % x.dim() for dim in dims] if dims else [*range(x.dim())]


def _split(x: Tensor, dims: Sequence[int] | None) -> tuple[list[int], list[int]]:
    """Return the dimensions of more than one number that are summed, and the others, the innermost last."""
    order = sorted((dim for dim in range(x.dim()) if x.shape[dim] > 1), key=x.stride, reverse=True)
    chosen = set(_positive(x, dims))
    return [dim for dim in order if dim in chosen], [dim for dim in order if dim not in chosen]
