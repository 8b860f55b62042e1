"""Lowerings of convolutions to matrix products, in which one factor is a strided view of padded images."""

from collections.abc import Sequence
from itertools import product
from math import gcd, prod
from typing import Any

import torch

from .builder import Builder
from .concatenation import concatenate
from .elementwise import arithmetic
from .ir import UnsupportedError, Value, View
from .lowering import register

aten = torch.ops.aten
MAX_MULTIPLICATIONS = 2**24
"""Maximum number of multiplications for one image and one output channel; torch computes larger convolutions."""


class _Convolution:
    """A two-dimensional convolution of images `[batch, channels, height, width]`.

    Images are stored channels-last and with their padding, so that the pixels under the kernel are a strided view.

    Args:
        b: the builder of the program.
        shape: the shape of the images.
        weight: `[output channels, channels, height, width]`.
        geometry: stride, padding and dilation, each for height and width.
    """

    def __init__(self, b: Builder, shape: Sequence[int], weight: Value, geometry: Sequence[Sequence[int]]) -> None:
        self.b, self.weight = b, weight
        self.stride, self.padding, self.dilation = geometry
        self.batch, self.channels, *self.image = shape
        self.out, _, *self.kernel = weight.shape
        sizes = zip(self.image, self.kernel, *geometry, strict=True)
        self.size = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes]
        if prod(self.size) * self.channels * prod(self.kernel) > MAX_MULTIPLICATIONS:
            raise UnsupportedError("a convolution of large images")

    def apply(self, x: Value) -> Value:
        """Return the convolution of images, `[batch, output channels, height, width]`."""
        out = self.b.new((self.batch, *self.size, self.out))
        self.b.multiply(out, self._under_kernel(x), self._weights(2, 3, 1, 0), rows=3, terms=3)
        return self._channels_first(out)

    def gradient_of_weight(self, change: Value, x: Value) -> Value:
        """Return the gradient with respect to the weights.

        Args:
            change: gradient with respect to the result of the convolution.
            x: the images.
        """
        out = self.b.new((*self.kernel, self.channels, self.out))
        left = self._under_kernel(x).apply(torch.Tensor.permute, (3, 4, 5, 0, 1, 2))[0]
        self.b.multiply(out, left, self._inside(self._result(change), self._margins(), self.size), rows=3, terms=3)
        return self.b.reshaped(self.b.loaded(out), torch.Tensor.permute, (3, 2, 0, 1))[0]

    def gradient_of_input(self, change: Value) -> Value:
        """Return the gradient with respect to the images, given the gradient with respect to the result.

        Pixels are processed in groups with equal position modulo the stride, since the same weights multiply them.
        """
        b, result, weights = self.b, self._result(change), self._weights(2, 3, 0, 1)
        out = b.new((self.batch, *self.image, self.channels))
        starts = [[*range(min(stride, n))] for stride, n in zip(self.stride, self.image, strict=True)]
        taps = [[self._taps(dim, start) for start in each] for dim, each in enumerate(starts)]
        if not all(each for dim in taps for each in dim):
            b.store(out, b.number(0.0, "float32"))
        for (y, rows), (x, columns) in product(*(zip(*each, strict=True) for each in zip(starts, taps, strict=True))):
            if rows and columns:
                target = out.apply(lambda t, y=y, x=x: t[:, y :: self.stride[0], x :: self.stride[1]])[0]
                under = weights.apply(lambda t, i=rows, j=columns: t[i.start :: i.step, j.start :: j.step])[0]
                left = self._results_of(result, (y, x), (rows, columns), target.shape)
                b.multiply(target, left, under, rows=3, terms=3)
        return self._channels_first(out)

    def _taps(self, dim: int, start: int) -> range:
        """Return the indices, along a dimension, of the weights that multiply the pixel at position `start`."""
        stride, dilation, position = self.stride[dim], self.dilation[dim], start + self.padding[dim]
        first = next((i for i in range(self.kernel[dim]) if (position - dilation * i) % stride == 0), self.kernel[dim])
        return range(first, self.kernel[dim], stride // gcd(stride, dilation))

    def _results_of(self, result: View, start: Sequence[int], taps: Sequence[range], shape: Sequence[int]) -> View:
        """Return a view of the results to which a group of pixels contributes.

        Args:
            result: the results, stored with margins.
            start: position of the first pixel of the group.
            taps: for each dimension, the indices of the weights that multiply the pixels.
            shape: shape of the group, `[batch, height, width, channels]`.

        Returns:
            View `[batch, height, width, taps, taps, output channels]`.
        """
        offset, steps = result.offset, []
        for dim, (low, _) in enumerate(self._margins()):
            stride, along = self.stride[dim], result.strides[1 + dim]
            first = (start[dim] + self.padding[dim] - self.dilation[dim] * taps[dim].start) // stride
            offset += (first + low) * along
            steps.append(-self.dilation[dim] * taps[dim].step // stride * along)
        sizes = (*shape[:3], *map(len, taps), self.out)
        return View(result.buffer, sizes, (*result.strides[:3], *steps, 1), offset)

    def _margins(self) -> list[tuple[int, int]]:
        """Return the widths of the margins around the results, before and after, for each dimension.

        At pixels near the border, the gradient also reads results outside the images. These are zero.
        """
        sizes = zip(self.image, self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return [
            (max(0, (d * (k - 1) - p) // s), max(0, (n - 1 + p) // s - (size - 1))) for n, size, k, s, p, d in sizes
        ]

    def _result(self, x: Value) -> View:
        return self._padded(x, self.size, self._margins())

    def _padded(self, x: Value, size: Sequence[int], margins: Sequence[tuple[int, int]]) -> View:
        """Store images channels-last with margins of zeros, unless they are stored already, and return the view."""
        b, key = self.b, ("padded", x, *margins)
        if key not in b.computed:
            image = b.reshaped(x, torch.Tensor.permute, (0, 2, 3, 1))[0]
            if any(map(any, margins)):
                view = b.new((x.shape[0], *(n + sum(each) for n, each in zip(size, margins, strict=True)), x.shape[1]))
                for dim, (low, high) in enumerate(margins, start=1):
                    for start, count in ((0, low), (view.shape[dim] - high, high)):
                        b.store(view.apply(torch.Tensor.narrow, dim, start, count)[0], b.number(0.0, "float32"))
                b.store(self._inside(view, margins, size), image)
            else:
                view = b.compute(image, in_order=True)
            b.computed[key] = b.loaded(view)
        return b.compute(b.computed[key])

    def _inside(self, view: View, margins: Sequence[tuple[int, int]], size: Sequence[int]) -> View:
        """Return the part of a view within its margins."""
        for dim, ((low, _), count) in enumerate(zip(margins, size, strict=True), start=1):
            (view,) = view.apply(torch.Tensor.narrow, dim, low, count)
        return view

    def _under_kernel(self, x: Value) -> View:
        """Return a view of the pixels under the kernel at each position of the result.

        Returns:
            View `[batch, height, width, kernel height, kernel width, channels]`.
        """
        image = self._padded(x, self.image, [(p, p) for p in self.padding])
        steps = image.strides[1:3]
        strides = [step * stride for step, stride in zip(steps, self.stride, strict=True)]
        taps = [step * dilation for step, dilation in zip(steps, self.dilation, strict=True)]
        shape = (self.batch, *self.size, *self.kernel, self.channels)
        return View(image.buffer, shape, (image.strides[0], *strides, *taps, 1), image.offset)

    def _weights(self, *order: int) -> View:
        """Store the weights with their dimensions permuted to `order` and return the view."""
        return self.b.compute(self.b.reshaped(self.weight, torch.Tensor.permute, order)[0], in_order=True)

    def _channels_first(self, image: View) -> Value:
        return self.b.reshaped(self.b.loaded(image), torch.Tensor.permute, (0, 3, 1, 2))[0]


def _flat(b: Builder, *images: Value) -> list[Value]:
    """Convert sequences to images of height one; images remain unchanged."""
    return [b.reshaped(x, torch.Tensor.unsqueeze, 2)[0] if len(x.shape) == 3 else x for x in images]


def _geometry(x: Value, args: Sequence[Any]) -> tuple[list[list[int]], bool, list[int], int]:
    """Return the arguments of a convolution, with those of sequences extended to images of height one.

    Args:
        x: the sequences or images.
        args: the arguments of `aten.convolution` from the stride on.

    Returns:
        `(stride, padding, dilation), transposed, output padding, groups`.
    """
    *geometry, transposed, output_padding, groups = args
    if len(x.shape) not in (3, 4):
        raise UnsupportedError("a convolution of volumes")
    count = len(x.shape) - 2
    wide = [list(each) * (count if len(each) == 1 else 1) for each in (*geometry, output_padding)]
    if count == 1:
        wide = [[neutral, *each] for neutral, each in zip((1, 0, 1, 0), wide, strict=True)]
    *geometry, output_padding = wide
    return geometry, transposed, output_padding, groups


def _parts(b: Builder, x: Value, groups: int, dim: int) -> list[Value]:
    return b.reshaped(x, torch.Tensor.chunk, groups, dim) if groups > 1 else [x]


def _joined(b: Builder, parts: Sequence[Value], dim: int) -> Value:
    return concatenate(b, parts, dim) if len(parts) > 1 else parts[0]


def _transposed_shape(
    x: Value, weight: Value, geometry: Sequence[Sequence[int]], output_padding: Sequence[int]
) -> list[int]:
    """Return the shape of the result of a transposed convolution."""
    sizes = zip(x.shape[2:], weight.shape[2:], *geometry, output_padding, strict=True)
    size = [(n - 1) * stride - 2 * padding + d * (k - 1) + more + 1 for n, k, stride, padding, d, more in sizes]
    return [x.shape[0], weight.shape[1], *size]


@register(aten.convolution.default)
def _convolution(b: Builder, x: Value, weight: Value, bias: Value | None, *args: Any) -> Value:
    geometry, transposed, output_padding, groups = _geometry(x, args)
    dims = len(x.shape)
    x, weight = _flat(b, x, weight)
    results = []
    for part, kernel in zip(_parts(b, x, groups, 1), _parts(b, weight, groups, 0), strict=True):
        if transposed:
            forward = _Convolution(b, _transposed_shape(part, kernel, geometry, output_padding), kernel, geometry)
            results.append(forward.gradient_of_input(part))
        else:
            results.append(_Convolution(b, part.shape, kernel, geometry).apply(part))
    result = _joined(b, results, 1)
    if bias is not None:
        result = arithmetic("add")(b, result, b.reshaped(bias, torch.Tensor.view, (-1, 1, 1))[0])
    return b.reshaped(result, torch.Tensor.squeeze, 2)[0] if dims == 3 else result


@register(aten.convolution_backward.default)
def _convolution_backward(b: Builder, g: Value, x: Value, weight: Value, _: Any, *args: Any) -> list[Value | None]:
    *given, mask = args
    geometry, transposed, _, groups = _geometry(x, given)
    dims = len(x.shape)
    g, x, weight = _flat(b, g, x, weight)
    of_input, of_weight = [], []
    for change, part, kernel in zip(
        _parts(b, g, groups, 1), _parts(b, x, groups, 1), _parts(b, weight, groups, 0), strict=True
    ):
        # A transposed convolution is the gradient of a convolution: its input and its result are exchanged.
        image, result = (change, part) if transposed else (part, change)
        convolution = _Convolution(b, image.shape, kernel, geometry)
        if mask[0]:
            of_input.append(convolution.apply(change) if transposed else convolution.gradient_of_input(change))
        if mask[1]:
            of_weight.append(convolution.gradient_of_weight(result, image))
    results: list[Value | None] = [
        _joined(b, of_input, 1) if mask[0] else None,
        _joined(b, of_weight, 0) if mask[1] else None,
    ]
    if dims == 3:
        results = [None if y is None else b.reshaped(y, torch.Tensor.squeeze, 2)[0] for y in results]
    return [*results, b.reduce("add", g, [0, 2, 3]) if mask[2] else None]
