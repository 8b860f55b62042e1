"""Lowerings of maximum and average pooling of images."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .builder import Builder
from .elementwise import arithmetic, comparison, where
from .ir import Node, UnsupportedError, Value, View, strides_in_order
from .lowering import register

aten = torch.ops.aten


class _Windows:
    """Pooling windows of images `[batch, channels, height, width]`.

    Args:
        x: the images.
        kernel: height and width of a window.
        stride: distance of the windows; the size of a window when empty.
        padding: number of pixels around the images.
        dilation: distance of the pixels within a window.
        ceil: True if windows may extend beyond the images.
    """

    def __init__(
        self, x: Value, kernel: Sequence[int], stride: Sequence[int], padding: Any, dilation: Any, ceil: bool
    ) -> None:
        if len(x.shape) != 4:
            raise UnsupportedError("pooling of images without a batch")
        kernel, padding, dilation = ((each[0], each[-1]) for each in (kernel, padding, dilation))
        stride = (stride[0], stride[-1]) if stride else kernel
        self.kernel, self.stride, self.padding, self.dilation = kernel, stride, padding, dilation
        image = torch.empty((1, 1, *x.shape[2:]), device="meta")
        pooled = functional.max_pool2d(image, kernel, stride, padding, dilation, ceil)
        self.images, self.size = x.shape[2:], (pooled.shape[2], pooled.shape[3])
        self.shape = (*x.shape[:2], *self.size)
        # The last pixel that a window covers may lie beyond the image, and the first one before it.
        ends = [(n - 1) * s + (k - 1) * d + 1 - p for n, s, k, d, p in self._sizes()]
        self.beyond = [max(0, end - n) for end, n in zip(ends, self.images, strict=True)]
        self.is_partition = (
            stride == kernel and not any((*padding, *self.beyond)) and dilation == (1, 1) and tuple(ends) == self.images
        )

    def _sizes(self) -> Any:
        return zip(self.size, self.stride, self.kernel, self.dilation, self.padding, strict=True)

    def padded(self, b: Builder, x: Value, number: float) -> Value:
        """Return the images, padded with a number to the area that the windows cover."""
        if not any((*self.padding, *self.beyond)):
            b.compute(x)
            return x
        view = b.new(self._padded_shape())
        b.store(view, b.number(number, "float32"))
        b.store(self._inside(view), x)
        return b.loaded(view)

    def _padded_shape(self) -> tuple[int, ...]:
        sizes = zip(self.images, self.padding, self.beyond, strict=True)
        return (*self.shape[:2], *(n + p + more for n, p, more in sizes))

    def _inside(self, view: View) -> View:
        for dim, (padding, size) in enumerate(zip(self.padding, self.images, strict=True), start=2):
            (view,) = view.apply(torch.Tensor.narrow, dim, padding, size)
        return view

    def pixels(self) -> list[tuple[Callable[[Tensor], Tensor], Value]]:
        """Return a function and a value for each pixel of a window.

        The function selects this pixel of all windows from padded images. The value holds the pixel's index in the
        flattened image, for all windows.
        """
        return [(self._select(i, j), self._index(i, j)) for i, j in product(*map(range, self.kernel))]

    def _select(self, i: int, j: int) -> Callable[[Tensor], Tensor]:
        starts = i * self.dilation[0], j * self.dilation[1]
        rows, columns = (
            slice(start, start + (n - 1) * step + 1, step)
            for start, n, step in zip(starts, self.size, self.stride, strict=True)
        )
        return lambda x: x[:, :, rows, columns]

    def _index(self, i: int, j: int) -> Value:
        row = self.images[1]
        start = (i * self.dilation[0] - self.padding[0]) * row + j * self.dilation[1] - self.padding[1]
        strides = 0, 0, self.stride[0] * row, self.stride[1]
        return Value(self.shape, Node("view", "int64", view=View(None, self.shape, strides, start)))

    def scatter(self, b: Builder, like: View, parts: Sequence[Value]) -> Value:
        """Return images in which each pixel is the sum of its values in all windows.

        Args:
            b: the builder of the program.
            like: images whose memory order the result has.
            parts: for each pixel of a window, its values in all windows; in the order of `pixels`.
        """
        if not self.is_partition:
            total = b.new(self._padded_shape())
            b.store(total, b.number(0.0, "float32"))
            for (select, _), part in zip(self.pixels(), parts, strict=True):
                target = total.apply(select)[0]
                b.store(target, arithmetic("add")(b, b.loaded(target), part))
            return b.loaded(self._inside(total))
        order = sorted(range(4), key=lambda dim: -like.strides[dim])
        out = View(b.new(like.shape).buffer, like.shape, strides_in_order(like.shape, order))
        for (select, _), part in zip(self.pixels(), parts, strict=True):
            b.store(out.apply(select)[0], part)
        return b.loaded(out)


@register(aten.max_pool2d_with_indices.default)
def _max_pool(
    b: Builder, x: Value, kernel: Any, stride: Any = (), padding: Any = (0,), dilation: Any = (1,), ceil: bool = False
) -> tuple[Value, Value]:
    windows = _Windows(x, kernel, stride, padding, dilation, ceil)
    padded = windows.padded(b, x, float("-inf"))
    (select, index), *others = windows.pixels()
    largest = b.reshaped(padded, select)[0]
    for select, each in others:
        part = b.reshaped(padded, select)[0]
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
def _average_pool(b: Builder, x: Value, kernel: Any, stride: Any = (), *options: Any) -> Value:
    windows, scale = _average(b, x, kernel, stride, *options)
    padded = windows.padded(b, x, 0.0)
    first, *others = [b.reshaped(padded, select)[0] for select, _ in windows.pixels()]
    for part in others:
        first = arithmetic("add")(b, first, part)
    return arithmetic("mul")(b, first, scale)


@register(aten.avg_pool2d_backward.default)
def _average_pool_backward(b: Builder, g: Value, x: Value, kernel: Any, stride: Any, *options: Any) -> Value:
    windows, scale = _average(b, x, kernel, stride, *options)
    part = arithmetic("mul")(b, g, scale)
    b.compute(part)
    return windows.scatter(b, b.compute(x), [part] * len(windows.pixels()))


def _average(
    b: Builder,
    x: Value,
    kernel: Any,
    stride: Any,
    padding: Any = (0,),
    ceil: bool = False,
    includes_padding: bool = True,
    divisor: int | None = None,
) -> tuple[_Windows, float | Value]:
    """Return the windows of average pooling and the factor that their sums are multiplied by."""
    windows = _Windows(x, kernel, stride, padding, (1,), ceil)
    if divisor is not None or windows.is_partition:
        return windows, 1 / (divisor or windows.kernel[0] * windows.kernel[1])
    ones = torch.ones((1, 1, *x.shape[2:]))
    given = windows.kernel, windows.stride, windows.padding, ceil
    # For images of ones, torch's average is the number of pixels within the image divided by torch's divisor, and the
    # number itself if the divisor is 1.
    shares = functional.avg_pool2d(ones, *given, includes_padding)
    counts = functional.avg_pool2d(ones, *given, True, 1)
    return windows, b.constant(shares / counts)
