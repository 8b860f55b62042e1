"""Losses that are interpolated between grid points, as in the browser (`app/static/landscape/loss_grid.js`)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .landscape import Box

Coefficients = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class LossGrid:
    """Function of points `[..., 2]` that interpolates values on a regular grid with cubic splines.

    Outside the grid, the squared distance from it is added.

    Args:
        box: region that the grid covers.
        values: values `[size, size]`, rows (y) first.
    """

    box: Box
    values: Tensor

    def __call__(self, points: Tensor) -> Tensor:
        """Return the interpolated values, `[..., 2] -> [...]`."""
        (x, column), (y, row) = (self._position(points, axis) for axis in (0, 1))
        beyond = self._beyond(points)
        inside = self._combine(column, row, _weights(x), _weights(y))
        return inside + (beyond[..., 0] ** 2 + beyond[..., 1] ** 2)

    def gradient(self, points: Tensor) -> Tensor:
        """Return the gradients, `[..., 2] -> [..., 2]`."""
        (x, column), (y, row) = (self._position(points, axis) for axis in (0, 1))
        beyond = self._beyond(points)
        slopes = (
            self._combine(column, row, _slopes(x), _weights(y)),
            self._combine(column, row, _weights(x), _slopes(y)),
        )
        parts = []
        for axis, slope in enumerate(slopes):
            low, high = self.box[axis]
            scaled = slope * ((len(self.values) - 1) / (high - low))
            parts.append(torch.where(beyond[..., axis] == 0, scaled, 0) + 2 * beyond[..., axis])
        return torch.stack(parts, -1)

    def _position(self, points: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Return the position between two grid points, from 0 to 1, and the index of the first of them."""
        (low, high), size = self.box[axis], len(self.values)
        position = ((points[..., axis] - low) / (high - low)).clamp(0, 1) * (size - 1)
        corner = position.floor().clamp(1, size - 3)
        return position - corner, corner.long()

    def _beyond(self, points: Tensor) -> Tensor:
        """Return the vector from the nearest point of the box, which is zero inside."""
        low, high = (points.new_tensor(ends) for ends in zip(*self.box, strict=True))
        return points - torch.maximum(torch.minimum(points, high), low)

    def _combine(self, column: Tensor, row: Tensor, across: Coefficients, along: Coefficients) -> Tensor:
        """Return the sum of the 4 × 4 surrounding values, weighted by columns and by rows."""

        def in_row(i: int) -> Tensor:
            return _sum_products(across, lambda j: self.values[row + (i - 1), column + (j - 1)])

        return _sum_products(along, in_row)


def _sum_products(weights: Coefficients, value: Callable[[int], Tensor]) -> Tensor:
    return weights[0] * value(0) + weights[1] * value(1) + weights[2] * value(2) + weights[3] * value(3)


# Catmull & Rom 1974: central differences at the grid points reproduce linear functions.
def _weights(f: Tensor) -> Coefficients:
    """Return the weights of four neighbouring values, at a position `f` from 0 to 1 between the middle ones."""
    return (
        0.5 * (2 * f**2 - f - f**3),
        0.5 * (2 - 5 * f**2 + 3 * f**3),
        0.5 * (f + 4 * f**2 - 3 * f**3),
        0.5 * (f**3 - f**2),
    )


def _slopes(f: Tensor) -> Coefficients:
    """Return the derivatives of the weights."""
    return (
        0.5 * (4 * f - 1 - 3 * f**2),
        0.5 * (9 * f**2 - 10 * f),
        0.5 * (1 + 8 * f - 9 * f**2),
        0.5 * (3 * f**2 - 2 * f),
    )
