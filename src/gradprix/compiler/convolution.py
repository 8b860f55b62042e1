"""Lowerings of convolutions, as products of matrices of patches."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from gradprix.kernels import vector_width

from .builder import Builder
from .concatenation import concatenate
from .elementwise import arithmetic
from .ir import Buffer, UnsupportedError, Value, View, contiguous, strides_in_order
from .lowering import register

aten = torch.ops.aten
LARGEST = 2**24
"""Most elements of patches: larger ones neither fit into a cache, nor many of them into memory."""
TILE = 2**17
"""Elements of patches that fit into a second-level cache: more are computed for some images at a time."""
PIXELS_LAST = 3, 4, 5, 0, 1, 2
"""Order in memory of the dimensions batch, height, width, kernel height, kernel width and channels of patches."""


class _Convolution:
    """A two-dimensional convolution of images `[batch, channels, height, width]`, with pixels as rows of matrices.

    Args:
        b: the program.
        shape: the shape of the images.
        weight: `[channels of the result, channels, height, width]`.
        geometry: stride, padding and dilation, for each dimension.
    """

    def __init__(self, b: Builder, shape: Sequence[int], weight: Value, geometry: Sequence[Sequence[int]]) -> None:
        self.b, self.weight = b, weight
        self.stride, self.padding, self.dilation = geometry
        self.batch, self.channels, *size = shape
        self.out, _, *self.kernel = weight.shape
        self.padded = [n + 2 * p for n, p in zip(size, self.padding, strict=True)]
        self.size = [
            (n - d * (k - 1) - 1) // s + 1
            for n, d, k, s in zip(self.padded, self.dilation, self.kernel, self.stride, strict=True)
        ]
        self.pixels = self.batch * prod(self.size)
        self.depth = self.channels * prod(self.kernel)
        self.images = _tile(self.batch, self.pixels * self.depth // self.batch)
        self.tiles, self.tile = self.batch // self.images, self.images * prod(self.size)
        if self.tile * self.depth > LARGEST:
            raise UnsupportedError("a convolution of large images")

    def patches(self, x: Value) -> Value:
        """Return the pixels under the kernel for each pixel of the result, `[pixels, depth]`; computed once."""
        key = "patches", x, *self.kernel, *self.stride, *self.padding, *self.dilation
        if key not in self.b.computed:
            self.b.computed[key] = self.b.loaded(self._tile_patches(self._padded_image(x)))
        return self.b.computed[key]

    def _padded_image(self, x: Value) -> View:
        """Store images with their padding, channels last."""
        b = self.b
        image = b.reshaped(x, torch.Tensor.permute, (0, 2, 3, 1))[0]
        if not any(self.padding):
            return b.compute(image, in_order=True)
        view = b.new((self.batch, *self.padded, self.channels))
        b.store(view, b.number(0.0, "float32"))
        b.store(self._inside(view), image)
        return view

    def _tile_patches(self, image: View) -> View:
        """Store the patches of the first tile of images, `[pixels, depth]`."""
        b = self.b
        under = self._under(image)
        if self.channels < vector_width():  # long rows of pixels are copied faster than short ones of channels
            order = strides_in_order(under.shape, PIXELS_LAST)
            patches = View(Buffer(prod(under.shape), "float32"), under.shape, order)
            b.store(patches, b.loaded(under))
        else:
            patches = under if _is_matrix(under, 3) else b.compute(b.copy(b.loaded(under)))
        return patches.apply(torch.Tensor.view, (self.tile, self.depth))[0]

    def apply(self, x: Value) -> Value:
        """Return the result for images."""
        b = self.b
        if self.tiles == 1:
            return self.image(b.matmul(self.patches(x), self.weights()))
        image, weights, out = self._padded_image(x), b.compute(self.weights()), b.new((self.pixels, self.out))
        if weights.buffer is image.buffer:
            weights = b.compute(b.copy(b.loaded(weights)))
        with b.repeat(self.tiles, {image: self.images * image.strides[0], out: self.tile * self.out}):
            b.multiply(self._first(out), self._tile_patches(image), weights)
        return self.image(b.loaded(out))

    def _first(self, rows: View) -> View:
        """Return the rows of the first tile."""
        return rows.apply(torch.Tensor.narrow, 0, 0, self.tile)[0]

    def rows(self, image: Value) -> Value:
        """Return a result as rows of pixels."""
        b = self.b
        rows = b.loaded(b.compute(b.reshaped(image, torch.Tensor.permute, (0, 2, 3, 1))[0], in_order=True))
        return b.reshaped(rows, torch.Tensor.view, (self.pixels, self.out))[0]

    def gradient_of_weight(self, rows: Value, x: Value) -> Value:
        """Return the gradient of the weights, given that of the result as rows of pixels."""
        b = self.b
        if self.tiles == 1:
            flat = b.matmul(b.reshaped(rows, torch.Tensor.t)[0], self.patches(x))
        else:
            view, image, total = b.compute(rows), self._padded_image(x), b.new((self.out, self.depth))
            b.store(total, b.number(0.0, "float32"))
            left = self._first(view).apply(torch.Tensor.t)[0]
            with b.repeat(self.tiles, {view: self.tile * self.out, image: self.images * image.strides[0]}):
                b.multiply(total, left, self._tile_patches(image), accumulate=True)
            flat = b.loaded(total)
        shaped = b.reshaped(flat, torch.Tensor.view, (self.out, *self.kernel, self.channels))[0]
        return b.reshaped(shaped, torch.Tensor.permute, (0, 3, 1, 2))[0]

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
        weights = b.compute(b.reshaped(self.weights(), torch.Tensor.t)[0])
        view, total = b.compute(rows), b.new((self.batch, *self.padded, self.channels))
        if weights.buffer is view.buffer:
            weights = b.compute(b.copy(b.loaded(weights)))
        b.store(total, b.number(0.0, "float32"))
        parts, targets = b.new((self.tile, self.depth)), self._under(total)
        under = View(parts.buffer, targets.shape, contiguous(targets.shape), parts.offset)
        with b.repeat(self.tiles, {view: self.tile * self.out, total: self.images * total.strides[0]}):
            b.multiply(parts, self._first(view), weights)
            for i in range(self.kernel[0]):
                for j in range(self.kernel[1]):
                    target, part = (_select(_select(each, 3, i), 3, j) for each in (targets, under))
                    b.store(target, arithmetic("add")(b, b.loaded(target), b.loaded(part)))
        return b.reshaped(b.loaded(self._inside(total)), torch.Tensor.permute, (0, 3, 1, 2))[0]

    def _inside(self, view: View) -> View:
        for dim, (padding, size) in enumerate(zip(self.padding, self.padded, strict=True), start=1):
            (view,) = view.apply(torch.Tensor.narrow, dim, padding, size - 2 * padding)
        return view

    def _under(self, view: View) -> View:
        """Return the view `[images, height, width, kernel height, kernel width, channels]` of padded images."""
        steps = view.strides[1:3]
        strides = [step * stride for step, stride in zip(steps, self.stride, strict=True)]
        taps = [step * dilation for step, dilation in zip(steps, self.dilation, strict=True)]
        shape = (self.images, *self.size, *self.kernel, self.channels)
        return View(view.buffer, shape, (view.strides[0], *strides, *taps, 1), view.offset)


def _tile(batch: int, elements: int) -> int:
    """Return how many images, a divisor of the batch, have at most `TILE` elements of patches."""
    return max(n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * elements <= TILE))


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


def _flat(b: Builder, *images: Value) -> list[Value]:
    """Return sequences as images of height one."""
    return [b.reshaped(x, torch.Tensor.unsqueeze, 2)[0] if len(x.shape) == 3 else x for x in images]


def _geometry(x: Value, args: Sequence[Any]) -> tuple[list[list[int]], bool, list[int], int]:
    """Return stride, padding and dilation of images, whether it is transposed, the output padding, and the groups."""
    *geometry, transposed, beyond, groups = args
    if len(x.shape) not in (3, 4):
        raise UnsupportedError("a convolution of volumes")
    count = len(x.shape) - 2
    wide = [list(each) * (count if len(each) == 1 else 1) for each in (*geometry, beyond)]
    if count == 1:
        wide = [[neutral, *each] for neutral, each in zip((1, 0, 1, 0), wide, strict=True)]
    *geometry, beyond = wide
    return geometry, transposed, beyond, groups


def _parts(b: Builder, x: Value, groups: int, dim: int) -> list[Value]:
    return b.reshaped(x, torch.Tensor.chunk, groups, dim) if groups > 1 else [x]


def _joined(b: Builder, parts: Sequence[Value], dim: int) -> Value:
    return concatenate(b, parts, dim) if len(parts) > 1 else parts[0]


def _opposite_shape(x: Value, weight: Value, geometry: Sequence[Sequence[int]], beyond: Sequence[int]) -> list[int]:
    """Return the shape of the result of a transposed convolution."""
    sizes = zip(x.shape[2:], weight.shape[2:], *geometry, beyond, strict=True)
    size = [(n - 1) * stride - 2 * padding + d * (k - 1) + more + 1 for n, k, stride, padding, d, more in sizes]
    return [x.shape[0], weight.shape[1], *size]


@register(aten.convolution.default)
def _convolution(b: Builder, x: Value, weight: Value, bias: Value | None, *args: Any) -> Value:
    geometry, transposed, beyond, groups = _geometry(x, args)
    dims = len(x.shape)
    x, weight = _flat(b, x, weight)
    results = []
    for part, kernel in zip(_parts(b, x, groups, 1), _parts(b, weight, groups, 0), strict=True):
        if transposed:
            opposite = _Convolution(b, _opposite_shape(part, kernel, geometry, beyond), kernel, geometry)
            results.append(opposite.gradient_of_input(opposite.rows(part)))
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
        # A transposed convolution is the gradient of one: the roles of its input and its result are exchanged.
        image, result = (change, part) if transposed else (part, change)
        convolution = _Convolution(b, image.shape, kernel, geometry)
        rows = convolution.rows(result)
        if mask[0]:
            of_input.append(convolution.apply(change) if transposed else convolution.gradient_of_input(rows))
        if mask[1]:
            of_weight.append(convolution.gradient_of_weight(rows, image))
    results: list[Value | None] = [
        _joined(b, of_input, 1) if mask[0] else None,
        _joined(b, of_weight, 0) if mask[1] else None,
    ]
    if dims == 3:
        results = [None if y is None else b.reshaped(y, torch.Tensor.squeeze, 2)[0] for y in results]
    return [*results, b.reduce("add", g, [0, 2, 3]) if mask[2] else None]
