"""Convolutions and pools of a stack of images.

In memory the channels of a pixel lie together: so convolutions are fastest on a CPU, and so torch pools fastest. Small
convolutions go into one, in groups, which saves calls, with the channels of all rows side by side; of large ones each
goes by itself, which saves laying them so. A pool takes rows as they lie. All compute a row in the same order whatever
the number of rows.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .vmap_op import Bridge

LARGE = 100_000
"""Numbers in the images of one row, before and after, from which on it goes by itself."""
FEWEST = 4
"""Rows that go into one convolution at least: of three channels in all, oneDNN takes images of red, green and blue and
goes another way."""
Given = tuple[Sequence[int], Sequence[int], Sequence[int], bool, Sequence[int], int]
"""Stride, padding, dilation, whether transposed, output padding, groups: as `torch.ops.aten.convolution` has them."""
INDICES = 5
"""Arguments of a pool, without the image, after which it may be asked for the places that it took."""
aten = torch.ops.aten


def convolution(dims: int, linear: Callable[..., Any]) -> Callable[..., Any]:
    """What takes the place of `torch.nn.functional.conv1d`, `conv2d` or `conv3d`.

    Args:
        dims: of an image.
        linear: what takes the place of `torch.nn.functional.linear`, as which a kernel of one pixel goes.
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
        if not _fits(x, dims):
            return NotImplemented
        steps = _each(stride, dims)
        if padding == "same":
            if set(steps) != {1}:
                return NotImplemented  # torch refuses it
            total = [d * (k - 1) for d, k in zip(_each(dilation, dims), weight.shape[2:], strict=True)]
            if any(each % 2 for each in total):
                x = functional.pad(x, [side for each in reversed(total) for side in (0, each % 2)])
            padding = [each // 2 for each in total]
        edges = _each(0 if padding == "valid" else padding, dims)
        if math.prod(weight.shape[2:]) == math.prod(steps) == groups == 1 and not any(edges):
            return linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)
        return _run(x, weight, bias, (steps, edges, _each(dilation, dims), False, [0] * dims, groups))

    return run


def transposed(dims: int) -> Callable[..., Any]:
    """What takes the place of `torch.nn.functional.conv_transpose1d`, `2d` or `3d`."""

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
        if not _fits(x, dims):
            return NotImplemented
        steps, edges, more = _each(stride, dims), _each(padding, dims), _each(output_padding, dims)
        return _run(x, weight, bias, (steps, edges, _each(dilation, dims), True, more, groups))

    return run


def pool(theirs: Callable[..., Any]) -> Callable[..., Any]:
    """What takes the place of a pool of images of `torch.nn.functional`, which is given."""

    def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not _fits(x, 2) or kwargs.get("return_indices") or len(args) > INDICES:
            return NotImplemented

        def pooled(x: Tensor) -> Tensor:
            side_by_side = x.stride(0) < x.stride(1)
            y = theirs(_joined(x) if side_by_side else x.flatten(0, 1), *args, **kwargs)
            return _apart(y, len(x), len(x)) if side_by_side else y.unflatten(0, x.shape[:2])

        return Bridge.apply(pooled, x)

    return run


def _fits(x: Tensor, dims: int) -> bool:
    return x.device.type == "cpu" and x.dim() == dims + 2 and not x.is_complex()


def _each(value: Any, dims: int) -> list[int]:
    found = [value] if isinstance(value, int) else list(value)
    return found * dims if len(found) == 1 else found


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, given: Given) -> Any:
    if x.dim() == 3:  # as an image that is one pixel high
        stride, padding, dilation, turned, more, groups = given
        given = [1, *stride], [0, *padding], [1, *dilation], turned, [0, *more], groups
        return _run(x.unsqueeze(2), weight.unsqueeze(2), bias, given).squeeze(2)
    return Bridge.apply(_convolve, x, weight, bias, given)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, given: Given) -> Tensor:
    rows, large = len(weight), _is_large(x, weight, given)
    y: Tensor = _Convolution.apply(x, weight, bias, given, large)
    # Taken apart out here: a view that a function of autograd makes may not be changed in place.
    return y if large else _apart(y, max(rows, FEWEST), rows)


def _is_large(x: Tensor, weight: Tensor, given: Given) -> bool:
    stride, _, _, turned, *_, groups = given
    channels = weight.shape[2] * groups if turned else weight.shape[1]
    after: float = x[0, :, 0].numel() * channels * math.prod(stride) ** (1 if turned else -1)
    return x[0].numel() + after >= LARGE


class _Convolution(torch.autograd.Function):
    """Of `x [rows, batch, channels, ...]` with `weight [rows, out, channels / groups, ...]`, or `[rows, in, ...]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, given: Given, large: bool) -> Tensor:
        ctx.large, ctx.given = large, given
        if large:
            ctx.save_for_backward(x, weight)
            found: Tensor = torch.ops.gradprix.convolution(x, weight, bias, *given)
            return found
        rows, x, weight = len(weight), _joined(_enough(x)), _enough(weight)
        ctx.save_for_backward(x, weight)
        ctx.rows, every = rows, len(weight)
        flat = None if bias is None else _enough(bias).flatten()
        found = aten.convolution(x, weight.flatten(0, 1), flat, *given[:-1], given[-1] * every)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if ctx.large:
            found = iter(torch.ops.gradprix.convolution_backward(g, x, weight, *ctx.given, wanted))
            return *(next(found) if each else None for each in wanted), None, None
        *given, groups = ctx.given
        rows, every, out = ctx.rows, len(weight), g.shape[1] // len(weight)
        g = g.movedim(1, -1).contiguous().movedim(-1, 1)
        g_x, g_weight, g_bias = aten.convolution_backward(
            g, x, weight.flatten(0, 1), [every * out], *given, groups * every, wanted
        )
        return (
            _apart(g_x, every, rows) if wanted[0] else None,
            g_weight.view_as(weight)[:rows] if wanted[1] else None,
            g_bias.view(every, out)[:rows] if wanted[2] else None,
            None,
            None,
        )


def _enough(x: Tensor) -> Tensor:
    """The rows, and empty ones behind them up to `FEWEST`."""
    return x if len(x) >= FEWEST else torch.cat([x, x.new_zeros(FEWEST - len(x), *x.shape[1:])])


def _joined(x: Tensor) -> Tensor:
    """The channels of all rows side by side, `[batch, rows * channels, ...]`."""
    return x.movedim((0, 2), (-2, -1)).flatten(-2).contiguous().movedim(-1, 1)


def _apart(x: Tensor, every: int, rows: int) -> Tensor:
    """The first of all rows, whose channels lie side by side."""
    pixels = x.movedim(1, -1)
    apart = pixels.view(*pixels.shape[:-1], every, x.shape[1] // every)
    if rows < every:
        apart = apart[..., :rows, :].contiguous()
    return apart.movedim((-2, -1), (0, 2))


# Each row by itself: operations of our own, so that a recorded step has one for all rows; a process defines them once

_library = torch.library.Library("gradprix", "DEF")
SCHEMA = "int[] stride, int[] padding, int[] dilation, bool transposed, int[] output_padding, int groups"
_library.define(f"convolution(Tensor x, Tensor weight, Tensor? bias, {SCHEMA}) -> Tensor")
_library.define(f"convolution_backward(Tensor g, Tensor x, Tensor weight, {SCHEMA}, bool[3] wanted) -> Tensor[]")


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, *given: Any) -> Tensor:
    def of(i: int) -> list[Tensor]:
        return [aten.convolution(_pixels(x[i]), weight[i], None if bias is None else bias[i], *given)]

    return _of_each(len(x), of)[0]


def _backward(g: Tensor, x: Tensor, weight: Tensor, *given: Any) -> list[Tensor]:
    def of(i: int) -> list[Tensor]:
        found = aten.convolution_backward(_pixels(g[i]), _pixels(x[i]), weight[i], [g.shape[2]], *given)
        return [each for each, wanted in zip(found, given[-1], strict=True) if wanted]

    return _of_each(len(x), of)


def _pixels(x: Tensor) -> Tensor:
    pixels = x.movedim(1, -1)
    # By way of a flat one: of a single channel torch keeps a stride that says nothing, and takes it for another form.
    return pixels.reshape(-1).view(pixels.shape).movedim(-1, 1)


def _of_each(rows: int, of: Callable[[int], list[Tensor]]) -> list[Tensor]:
    """Stacks of what comes of each row, laid out in memory as it comes."""
    found = of(0)
    stacks = [torch.empty_strided((rows, *x.shape), (x.numel(), *x.stride()), dtype=x.dtype) for x in found]
    for i in range(rows):
        for stack, x in zip(stacks, found if i == 0 else of(i), strict=True):
            stack[i] = x
    return stacks


for _name, _function in (("convolution", _forward), ("convolution_backward", _backward)):
    _library.impl(_name, _function, "CPU")
    torch.library.register_fake(f"gradprix::{_name}", _function, lib=_library)
