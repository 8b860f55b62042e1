"""Lowerings of resizing and adaptive pooling, as products with a matrix for each dimension of an image."""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .builder import Builder
from .ir import UnsupportedError, Value
from .lowering import register

aten = torch.ops.aten
Resize = Callable[[Tensor], Tensor]


def _matrices(size: Sequence[int], resize: Resize) -> list[Tensor]:
    """Return the matrices `[size, new size]` for height and width of a linear function that resizes images.

    The function must resize height and width independently.
    """
    height, width = size
    # For images that are constant along one dimension, the function acts only on the other one.
    of_rows = resize(torch.eye(height).view(1, height, height, 1).expand(-1, -1, -1, width))
    of_columns = resize(torch.eye(width).view(1, width, 1, width).expand(-1, -1, height, -1))
    return [of_rows[0, :, :, 0], of_columns[0, :, 0]]


def _resized(b: Builder, x: Value, size: Sequence[int], resize: Resize, is_backward: bool = False) -> Value:
    """Resize images of shape `[batch, channels, *size]`, or return the gradient of resizing them.

    Args:
        b: the builder of the program.
        x: the images, or the gradient with respect to the resized images if `is_backward`.
        size: height and width before resizing.
        resize: the linear function that resizes images.
        is_backward: return the gradient.
    """
    if len(x.shape) != 4:
        raise UnsupportedError("resizing of images without a batch")
    rows, columns = (each.T if is_backward else each for each in _matrices(size, resize))
    images, (height, width) = x.shape[:2], x.shape[2:]
    count, new_height, new_width = prod(images), rows.shape[1], columns.shape[1]
    flat = b.reshaped(x, torch.Tensor.reshape, (count * height, width))[0]
    wide = b.reshaped(b.matmul(flat, b.constant(columns)), torch.Tensor.view, (count, height, new_width))[0]
    left = b.expand(b.constant(rows.T.contiguous()), (count, new_height, height))
    return b.reshaped(b.matmul(left, wide), torch.Tensor.view, (*images, new_height, new_width))[0]


@register(aten._adaptive_avg_pool2d.default, aten.adaptive_avg_pool2d.default)
def _adaptive_average(b: Builder, x: Value, size: Sequence[int]) -> Value:
    return _resized(b, x, x.shape[2:], partial(functional.adaptive_avg_pool2d, output_size=(size[0], size[1])))


@register(aten._adaptive_avg_pool2d_backward.default)
def _adaptive_average_backward(b: Builder, g: Value, x: Value) -> Value:
    resize = partial(functional.adaptive_avg_pool2d, output_size=(g.shape[2], g.shape[3]))
    return _resized(b, g, x.shape[2:], resize, is_backward=True)


def _register(forward: Any) -> None:
    """Register the lowering of a resizing operation with the arguments `(x, new size, *options)`."""

    @register(forward)
    def resize(b: Builder, x: Value, size: Sequence[int], *options: Any) -> Value:
        return _resized(b, x, x.shape[2:], lambda image: forward(image, size, *options))


def _register_gradient(forward: Any, backward: Any) -> None:
    """Register the lowering of the gradient of a resizing operation."""

    @register(backward)
    def gradient(b: Builder, g: Value, size: Sequence[int], old: Sequence[int], *options: Any) -> Value:
        def apply(image: Tensor) -> Tensor:
            return forward(image, size, *options)  # type: ignore[no-any-return]

        return _resized(b, g, old[2:], apply, is_backward=True)


for _name in ("upsample_bilinear2d", "upsample_bicubic2d"):
    _register(getattr(aten, _name).default)
for _name in ("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_nearest_exact2d"):
    # Nearest-neighbor resizing itself is not a product, since an infinite pixel would turn others into NaN. Its
    # decomposition looks up the pixels.
    _register_gradient(getattr(aten, _name).default, getattr(aten, f"{_name}_backward").default)
