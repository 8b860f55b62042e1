"""Lowerings of convolutions, as products of matrices of patches."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from .builder import Builder
from .elementwise import arithmetic
from .ir import UnsupportedError, Value, View, contiguous
from .lowering import register

aten = torch.ops.aten
LARGEST = 2**24
"""Most elements of patches: larger ones neither fit into a cache, nor many of them into memory."""


class _Convolution:
    """A two-dimensional convolution of `x [batch, channels, height, width]`, with pixels as rows of matrices."""

    def __init__(self, b: Builder, x: Value, weight: Value, args: Sequence[Any]) -> None:
        *geometry, transposed, _, groups = args
        if len(x.shape) != 4 or transposed or groups != 1:
            raise UnsupportedError("this convolution")
        self.b, self.x, self.weight = b, x, weight
        self.stride, self.padding, self.dilation = (list(each) * (2 if len(each) == 1 else 1) for each in geometry)
        self.batch, self.channels, *size = x.shape
        self.out, _, *self.kernel = weight.shape
        self.padded = [n + 2 * p for n, p in zip(size, self.padding, strict=True)]
        self.size = [
            (n - d * (k - 1) - 1) // s + 1
            for n, d, k, s in zip(self.padded, self.dilation, self.kernel, self.stride, strict=True)
        ]
        self.pixels = self.batch * prod(self.size)
        self.depth = self.channels * prod(self.kernel)
        if self.pixels * self.depth > LARGEST:
            raise UnsupportedError("a convolution of large images")

    def patches(self) -> Value:
        """Return the pixels under the kernel for each pixel of the result, `[pixels, depth]`; computed once."""
        key = "patches", self.x, *self.kernel, *self.stride, *self.padding, *self.dilation
        if key not in self.b.computed:
            self.b.computed[key] = self._patches()
        return self.b.computed[key]

    def _patches(self) -> Value:
        b = self.b
        image = b.reshaped(self.x, torch.Tensor.permute, (0, 2, 3, 1))[0]
        if any(self.padding):
            view = b.new((self.batch, *self.padded, self.channels))
            b.store(view, b.number(0.0, "float32"))
            b.store(self._inside(view), image)
        else:
            view = b.compute(image, in_order=True)
        under = self._under(view)
        value = b.loaded(under)
        if not _is_matrix(under, 3):
            value = b.copy(value)
        return b.reshaped(value, torch.Tensor.view, (self.pixels, self.depth))[0]

    def weights(self) -> Value:
        """Return the weights as `[depth, channels of the result]`."""
        order = self.b.reshaped(self.weight, torch.Tensor.permute, (2, 3, 1, 0))[0]
        return self.b.reshaped(order, torch.Tensor.view, (self.depth, self.out))[0]

    def image(self, rows: Value) -> Value:
        """Return rows of pixels as an image."""
        shaped = self.b.reshaped(rows, torch.Tensor.view, (self.batch, *self.size, rows.shape[1]))[0]
        return self.b.reshaped(shaped, torch.Tensor.permute, (0, 3, 1, 2))[0]

    def gradient_of_input(self, rows: Value) -> Value:
        """Return the gradient of the input, given that of the result as rows of pixels."""
        b = self.b
        weights = b.reshaped(self.weights(), torch.Tensor.t)[0]
        parts = b.compute(b.matmul(rows, weights))
        shape = (self.batch, *self.size, *self.kernel, self.channels)
        under = View(parts.buffer, shape, contiguous(shape), parts.offset)
        total = b.new((self.batch, *self.padded, self.channels))
        b.store(total, b.number(0.0, "float32"))
        targets = self._under(total)
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                target, part = (_select(_select(view, 3, i), 3, j) for view in (targets, under))
                b.store(target, arithmetic("add")(b, b.loaded(target), b.loaded(part)))
        return b.reshaped(b.loaded(self._inside(total)), torch.Tensor.permute, (0, 3, 1, 2))[0]

    def _inside(self, view: View) -> View:
        for dim, (padding, size) in enumerate(zip(self.padding, self.padded, strict=True), start=1):
            (view,) = view.apply(torch.Tensor.narrow, dim, padding, size - 2 * padding)
        return view

    def _under(self, view: View) -> View:
        """Return the view `[batch, height, width, kernel height, kernel width, channels]` of a padded image."""
        steps = view.strides[1:3]
        strides = [step * stride for step, stride in zip(steps, self.stride, strict=True)]
        taps = [step * dilation for step, dilation in zip(steps, self.dilation, strict=True)]
        shape = (self.batch, *self.size, *self.kernel, self.channels)
        return View(view.buffer, shape, (view.strides[0], *strides, *taps, 1), view.offset)


def _is_matrix(view: View, first: int) -> bool:
    """Return True if the dimensions up to `first`, and those from there on, merge."""
    try:
        rows = prod(view.shape[:first])
        view.apply(torch.Tensor.view, (rows, prod(view.shape) // rows))
    except RuntimeError:
        return False
    return True


def _select(view: View, dim: int, i: int) -> View:
    return view.apply(torch.Tensor.select, dim, i)[0]


@register(aten.convolution.default)
def _convolution(b: Builder, x: Value, weight: Value, bias: Value | None, *args: Any) -> Value:
    convolution = _Convolution(b, x, weight, args)
    result = b.matmul(convolution.patches(), convolution.weights())
    return convolution.image(result if bias is None else arithmetic("add")(b, result, bias))


@register(aten.convolution_backward.default)
def _convolution_backward(b: Builder, g: Value, x: Value, weight: Value, _: Any, *args: Any) -> list[Value | None]:
    *given, mask = args
    convolution = _Convolution(b, x, weight, given)
    pixels = b.reshaped(g, torch.Tensor.permute, (0, 2, 3, 1))[0]
    rows = b.loaded(b.compute(pixels, in_order=True))
    rows = b.reshaped(rows, torch.Tensor.view, (convolution.pixels, convolution.out))[0]
    results: list[Value | None] = [None, None, None]
    if mask[0]:
        results[0] = convolution.gradient_of_input(rows)
    if mask[1]:
        flat = b.matmul(b.reshaped(rows, torch.Tensor.t)[0], convolution.patches())
        sizes = (convolution.out, *convolution.kernel, convolution.channels)
        shaped = b.reshaped(flat, torch.Tensor.view, sizes)[0]
        results[1] = b.reshaped(shaped, torch.Tensor.permute, (0, 3, 1, 2))[0]
    if mask[2]:
        results[2] = b.reduce("add", rows, [0])
    return results
