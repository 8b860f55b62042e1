"""Lowerings of pooling of windows that do not overlap."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .builder import Builder
from .elementwise import arithmetic, comparison, where
from .ir import Node, UnsupportedError, Value, View, strides_in_order
from .lowering import register

aten = torch.ops.aten


class _Windows:
    """Windows of images `[batch, channels, height, width]`.

    Args:
        x: the images.
        kernel: height and width of a window.
        stride: their distance, the size of a window if empty.
        padding: number of pixels around the images.
        dilation: distance of the pixels of a window.
        ceil: True if windows may extend beyond the images.

    Raises:
        UnsupportedError: if windows overlap, leave gaps, or extend beyond the images.
    """

    def __init__(
        self, x: Value, kernel: Sequence[int], stride: Sequence[int], padding: Any, dilation: Any, ceil: bool
    ) -> None:
        self.height, self.width = kernel[0], kernel[-1]
        steps = (stride[0], stride[-1]) if stride else (self.height, self.width)
        regular = steps == (self.height, self.width) and not any(padding) and all(each == 1 for each in dilation)
        if len(x.shape) != 4 or not regular:
            raise UnsupportedError("pooling of windows that overlap")
        self.size = x.shape[2] // self.height, x.shape[3] // self.width
        self.covers = (self.size[0] * self.height, self.size[1] * self.width) == x.shape[2:]
        if ceil and not self.covers:
            raise UnsupportedError("pooling beyond the images")
        self.shape, self.row = (*x.shape[:2], *self.size), x.shape[3]

    def pixels(self) -> list[tuple[Callable[[Tensor], Tensor], Value]]:
        """Return for each pixel of a window the view of it in all windows, and its index in the image."""
        return [
            (self._select(i, j), self._index(i * self.row + j)) for i in range(self.height) for j in range(self.width)
        ]

    def _select(self, i: int, j: int) -> Callable[[Tensor], Tensor]:
        rows = slice(i, i + self.size[0] * self.height, self.height)
        columns = slice(j, j + self.size[1] * self.width, self.width)
        return lambda x: x[:, :, rows, columns]

    def _index(self, start: int) -> Value:
        strides = 0, 0, self.height * self.row, self.width
        return Value(self.shape, Node("view", "int64", view=View(None, self.shape, strides, start)))

    def scatter(self, b: Builder, like: View, parts: Sequence[Value]) -> Value:
        """Return images in the memory order of others, made of a value for each pixel of the windows."""
        order = sorted(range(4), key=lambda dim: -like.strides[dim])
        out = View(b.new(like.shape).buffer, like.shape, strides_in_order(like.shape, order))
        if not self.covers:
            b.store(out, b.number(0.0, "float32"))
        for (select, _), part in zip(self.pixels(), parts, strict=True):
            b.store(out.apply(select)[0], part)
        return b.loaded(out)


@register(aten.max_pool2d_with_indices.default)
def _max_pool(
    b: Builder, x: Value, kernel: Any, stride: Any = (), padding: Any = (0,), dilation: Any = (1,), ceil: bool = False
) -> tuple[Value, Value]:
    windows = _Windows(x, kernel, stride, padding, dilation, ceil)
    b.compute(x)
    (select, index), *others = windows.pixels()
    largest = b.reshaped(x, select)[0]
    for select, each in others:
        part = b.reshaped(x, select)[0]
        is_nan = comparison("ne")(b, part, part)
        chosen = b.pointwise("or", "bool", comparison("gt")(b, part, largest), is_nan)
        index, largest = where(b, chosen, each, index), where(b, chosen, part, largest)
        b.compute(index)
        b.compute(largest)
    return largest, index


@register(aten.max_pool2d_with_indices_backward.default)
def _max_pool_backward(b: Builder, g: Value, x: Value, *args: Any) -> Value:
    *given, index = args
    windows = _Windows(x, *given)
    b.compute(g)
    parts = [where(b, comparison("eq")(b, index, each), g, 0.0) for _, each in windows.pixels()]
    return windows.scatter(b, b.compute(x), parts)


@register(aten.avg_pool2d.default)
def _average_pool(
    b: Builder, x: Value, kernel: Any, stride: Any = (), padding: Any = (0,), ceil: bool = False, *_: Any
) -> Value:
    if _ and _[-1] is not None:
        raise UnsupportedError("average pooling with a divisor")
    windows = _Windows(x, kernel, stride, padding, (1,), ceil)
    b.compute(x)
    first, *others = [b.reshaped(x, select)[0] for select, _ in windows.pixels()]
    for part in others:
        first = arithmetic("add")(b, first, part)
    return arithmetic("mul")(b, first, 1 / (windows.height * windows.width))


@register(aten.avg_pool2d_backward.default)
def _average_pool_backward(
    b: Builder, g: Value, x: Value, kernel: Any, stride: Any, padding: Any, ceil: bool, *_: Any
) -> Value:
    windows = _Windows(x, kernel, stride, padding, (1,), ceil)
    part = arithmetic("mul")(b, g, 1 / (windows.height * windows.width))
    b.compute(part)
    return windows.scatter(b, b.compute(x), [part] * len(windows.pixels()))
