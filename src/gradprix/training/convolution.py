"""Convolutions and pooling of stacks of images.

Images are channels-last in memory, the fastest format on a CPU for convolution and pooling. The small convolutions of
all rows run as one grouped convolution: this saves calls, but requires a copy in which the channels of all rows are
adjacent. Large convolutions run row by row, which avoids the copy. Pooling accepts rows in either layout. The order of
operations within a row does not depend on the number of rows.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .vmap_op import VmapFunction, as_in_autocast

LARGE = 100_000
"""Rows are convolved one by one if the input and output of a row have at least this many elements in total."""
MIN_ROWS = 4
"""Minimum number of rows in a grouped convolution. If there are three channels in total, oneDNN assumes RGB images and
chooses another algorithm."""
ConvolutionArgs = tuple[Sequence[int], Sequence[int], Sequence[int], bool, Sequence[int], int]
"""Stride, padding, dilation, transposed, output padding and groups, as in `torch.ops.aten.convolution`."""
MAX_POOLING_ARGS = 5
"""Number of positional arguments of a pooling function between the image and `return_indices`."""
aten = torch.ops.aten


def convolution(dims: int, linear: Callable[..., Any]) -> Callable[..., Any]:
    """Return the stacked version of `torch.nn.functional.conv1d`, `conv2d` or `conv3d`.

    Args:
        dims: number of spatial dimensions.
        linear: the stacked version of `torch.nn.functional.linear`, which computes 1×1 convolutions.
    """

    def run(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Any:
        if not _is_supported(x, dims):
            return NotImplemented
        steps = _as_list(stride, dims)
        if padding == "same":
            if set(steps) != {1}:
                return NotImplemented  # torch raises an error
            total = [d * (k - 1) for d, k in zip(_as_list(dilation, dims), weight.shape[2:], strict=True)]
            if any(each % 2 for each in total):
                x = functional.pad(x, [side for each in reversed(total) for side in (0, each % 2)])
            padding = [each // 2 for each in total]
        edges = _as_list(0 if padding == "valid" else padding, dims)
        if math.prod(weight.shape[2:]) == math.prod(steps) == groups == 1 and not any(edges):
            return linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)
        return _run(x, weight, bias, (steps, edges, _as_list(dilation, dims), False, [0] * dims, groups))

    return run


def transposed(dims: int) -> Callable[..., Any]:
    """Return the stacked version of `torch.nn.functional.conv_transpose1d`, `2d` or `3d`."""

    def run(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Any:
        if not _is_supported(x, dims):
            return NotImplemented
        steps, edges, output_padding = _as_list(stride, dims), _as_list(padding, dims), _as_list(output_padding, dims)
        return _run(x, weight, bias, (steps, edges, _as_list(dilation, dims), True, output_padding, groups))

    return run


def pool(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return the stacked version of one of torch's 2d pooling functions."""

    def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not _is_supported(x, 2) or kwargs.get("return_indices") or len(args) > MAX_POOLING_ARGS:
            return NotImplemented

        def pooled(x: Tensor) -> Tensor:
            side_by_side = x.stride(0) < x.stride(1)
            y = original(_merge_rows(x) if side_by_side else x.flatten(0, 1), *args, **kwargs)
            return _split_rows(y, len(x), len(x)) if side_by_side else y.unflatten(0, x.shape[:2])

        return VmapFunction.apply(pooled, x)

    return run


def _is_supported(x: Tensor, dims: int) -> bool:
    return x.device.type == "cpu" and x.dim() == dims + 2 and not x.is_complex()


def _as_list(value: Any, dims: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * dims if len(values) == 1 else values


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, args: ConvolutionArgs) -> Any:
    if x.dim() == 3:  # treat as an image that is one pixel high
        stride, padding, dilation, transposed, output_padding, groups = args
        args = [1, *stride], [0, *padding], [1, *dilation], transposed, [0, *output_padding], groups
        return _run(x.unsqueeze(2), weight.unsqueeze(2), bias, args).squeeze(2)
    return VmapFunction.apply(_convolve, *as_in_autocast(x, weight, bias), args)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, args: ConvolutionArgs) -> Tensor:
    rows, large = len(weight), _is_large(x, weight, args)
    y: Tensor = _Convolution.apply(x, weight, bias, args, large)
    # Split outside the autograd function: a view that such a function returns may not be changed in place.
    return y if large else _split_rows(y, max(rows, MIN_ROWS), rows)


def _is_large(x: Tensor, weight: Tensor, args: ConvolutionArgs) -> bool:
    stride, _, _, transposed, *_, groups = args
    channels = weight.shape[2] * groups if transposed else weight.shape[1]
    after: float = x[0, :, 0].numel() * channels * math.prod(stride) ** (1 if transposed else -1)
    return x[0].numel() + after >= LARGE


class _Convolution(torch.autograd.Function):
    """Convolution of `x [rows, batch, channels, ...]` with `weight [rows, out, channels / groups, ...]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, args: ConvolutionArgs, large: bool) -> Tensor:
        ctx.large, ctx.args = large, args
        if large:
            ctx.save_for_backward(x, weight)
            y: Tensor = torch.ops.gradprix.convolution(x, weight, bias, *args)
            return y
        rows, x, weight = len(weight), _merge_rows(_pad_rows(x)), _pad_rows(weight)
        ctx.save_for_backward(x, weight)
        ctx.rows, padded_rows = rows, len(weight)
        flat = None if bias is None else _pad_rows(bias).flatten()
        y = aten.convolution(x, weight.flatten(0, 1), flat, *args[:-1], args[-1] * padded_rows)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        needs_grad = ctx.needs_input_grad[:3]
        if ctx.large:
            grads = iter(torch.ops.gradprix.convolution_backward(g, x, weight, *ctx.args, needs_grad))
            return *(next(grads) if each else None for each in needs_grad), None, None
        *args, groups = ctx.args
        rows, padded_rows, out = ctx.rows, len(weight), g.shape[1] // len(weight)
        g = g.movedim(1, -1).contiguous().movedim(-1, 1)
        g_x, g_weight, g_bias = aten.convolution_backward(
            g, x, weight.flatten(0, 1), [padded_rows * out], *args, groups * padded_rows, needs_grad
        )
        return (
            _split_rows(g_x, padded_rows, rows) if needs_grad[0] else None,
            g_weight.view_as(weight)[:rows] if needs_grad[1] else None,
            g_bias.view(padded_rows, out)[:rows] if needs_grad[2] else None,
            None,
            None,
        )


def _pad_rows(x: Tensor) -> Tensor:
    """Append rows of zeros up to `MIN_ROWS` rows."""
    return x if len(x) >= MIN_ROWS else torch.cat([x, x.new_zeros(MIN_ROWS - len(x), *x.shape[1:])])


def _merge_rows(x: Tensor) -> Tensor:
    """Merge the rows into the channels: `[rows, batch, channels, ...]` becomes `[batch, rows * channels, ...]`."""
    return x.movedim((0, 2), (-2, -1)).flatten(-2).contiguous().movedim(-1, 1)


def _split_rows(x: Tensor, padded_rows: int, rows: int) -> Tensor:
    """Undo `_merge_rows`: split the channels into `padded_rows` rows and return the first `rows` of them."""
    pixels = x.movedim(1, -1)
    split = pixels.view(*pixels.shape[:-1], padded_rows, x.shape[1] // padded_rows)
    if rows < padded_rows:
        split = split[..., :rows, :].contiguous()
    return split.movedim((-2, -1), (0, 2))


# Convolutions row by row, as custom operators, so that a traced step has one node for all rows

_library = torch.library.Library("gradprix", "DEF")
SCHEMA = "int[] stride, int[] padding, int[] dilation, bool transposed, int[] output_padding, int groups"
_library.define(f"convolution(Tensor x, Tensor weight, Tensor? bias, {SCHEMA}) -> Tensor")
_library.define(f"convolution_backward(Tensor g, Tensor x, Tensor weight, {SCHEMA}, bool[3] wanted) -> Tensor[]")


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, *args: Any) -> Tensor:
    def convolve_row(i: int) -> list[Tensor]:
        return [aten.convolution(_channels_last(x[i]), weight[i], None if bias is None else bias[i], *args)]

    return _stack_rows(len(x), convolve_row)[0]


def _backward(g: Tensor, x: Tensor, weight: Tensor, *args: Any) -> list[Tensor]:
    def row_gradients(i: int) -> list[Tensor]:
        grads = aten.convolution_backward(_channels_last(g[i]), _channels_last(x[i]), weight[i], [g.shape[2]], *args)
        return [each for each, wanted in zip(grads, args[-1], strict=True) if wanted]

    return _stack_rows(len(x), row_gradients)


def _channels_last(x: Tensor) -> Tensor:
    pixels = x.movedim(1, -1)
    # Reshape through a flat tensor: otherwise torch keeps an arbitrary stride for a single channel, and then chooses
    # another layout.
    return pixels.reshape(-1).view(pixels.shape).movedim(-1, 1)


def _stack_rows(rows: int, compute_row: Callable[[int], list[Tensor]]) -> list[Tensor]:
    """Compute results row by row and stack them; each row has the memory layout of the first.

    Args:
        rows: number of rows.
        compute_row: returns the list of results for the row at an index.
    """
    first = compute_row(0)
    stacks = [torch.empty_strided((rows, *x.shape), (x.numel(), *x.stride()), dtype=x.dtype) for x in first]
    for i in range(rows):
        for stack, x in zip(stacks, first if i == 0 else compute_row(i), strict=True):
            stack[i] = x
    return stacks


for _name, _function in (("convolution", _forward), ("convolution_backward", _backward)):
    _library.impl(_name, _function, "CPU")
    torch.library.register_fake(f"gradprix::{_name}", _function, lib=_library)
