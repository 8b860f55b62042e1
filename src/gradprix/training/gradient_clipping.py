"""Clipping of each model's gradient to a maximum norm, as in `torch.nn.utils.clip_grad_norm_`."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from gradprix.compiler import IndexedRows, Recording, RowCall, RowFunction, UnsupportedError

EPSILON = 1e-6
"""Number that torch adds to the norm before it divides by it."""
Layout = tuple[tuple[int, ...], torch.dtype]


class GradientClipper:
    """Clips the gradients of the rows of a stack, each to its own maximum norm.

    On the CPU, rows of float32 are clipped by machine code. The numbers of a row depend neither on the other rows nor
    on their number.

    Args:
        max_norms: the maximum norm of each row, `[rows]`, on the device of the gradients.
    """

    def __init__(self, max_norms: Tensor) -> None:
        self.max_norms = max_norms

    def __call__(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return the clipped gradients.

        As in torch, a norm that is infinite or NaN makes the gradient zero or NaN.

        Args:
            gradients: the gradient of each parameter, `[rows, ...]`.
        """
        function = _compile_clipping(tuple((tuple(g.shape[1:]), g.dtype) for g in gradients), gradients[0].device)
        if function is not None:
            return [x for x in function(*gradients, self.max_norms) if x is not None]
        factors = (self.max_norms / (row_norms(gradients) + EPSILON)).clamp(max=1.0)
        return scale_rows(gradients, factors)

    def row_call(self, gradients: Sequence[Tensor]) -> RowCall | None:
        """Prepare the clipping of one row after the other.

        Args:
            gradients: the gradient of each parameter, `[1, ...]`, in memory that all rows use.

        Returns:
            A call whose results are the clipped gradients, `[1, ...]`; None if there is no machine code for them.
        """
        function = _compile_clipping(tuple((tuple(g.shape[1:]), g.dtype) for g in gradients), gradients[0].device)
        if function is None:
            return None
        same_memory = torch.zeros(len(self.max_norms), dtype=torch.long)
        args: list[Tensor | IndexedRows] = [*(IndexedRows(g, same_memory) for g in gradients), self.max_norms]
        return RowCall(function, args, range(len(gradients)))

    def select_rows(self, index: Tensor) -> "GradientClipper":
        """Return a clipper of the rows at `index`."""
        return GradientClipper(self.max_norms[index])


def row_norms(gradients: Sequence[Tensor]) -> Tensor:
    """Return the norm of the gradients of each row, `[rows]`.

    Args:
        gradients: the gradient of each parameter, `[rows, ...]`.
    """
    if gradients[0].device.type == "cpu":  # row by row: a sum over a stack may depend on the number of its rows
        return torch.stack([_norm([g[row] for g in gradients]) for row in range(len(gradients[0]))])
    norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients])
    norm: Tensor = torch.linalg.vector_norm(norms, dim=0)
    return norm


def scale_rows(tensors: Sequence[Tensor], factors: Tensor) -> list[Tensor]:
    """Return tensors, `[rows, ...]` each, with each row multiplied by its factor, `[rows]`."""
    return [x * factors.to(x.dtype).view(-1, *[1] * (x.dim() - 1)) for x in tensors]


def _norm(gradients: Sequence[Tensor]) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    return norms


@lru_cache(maxsize=64)
def _compile_clipping(layouts: tuple[Layout, ...], device: torch.device) -> RowFunction | None:
    """Compile the clipping of one model's gradients; None if row programs do not support their types or their number.

    Args:
        layouts: shape and type of each gradient.
        device: device of the gradients.
    """
    if device.type != "cpu" or any(dtype is not torch.float32 for _, dtype in layouts):
        return None

    def clip(*args: Tensor) -> list[Tensor | None]:
        *gradients, max_norm = args
        squares = torch.stack([g.square().sum() for g in gradients])
        factor = (max_norm / (squares.sum().sqrt() + EPSILON)).clamp(max=1.0)
        return [g * factor for g in gradients]

    arguments = [torch.zeros(shape, dtype=dtype) for shape, dtype in (*layouts, ((), torch.float32))]
    try:
        return RowFunction(Recording(clip, arguments))
    except UnsupportedError:
        return None
