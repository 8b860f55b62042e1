"""Sharpness-aware minimization (SAM): a step along the gradient at the worst weights of a neighbourhood."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from .gradient_clipping import row_norms, scale_rows


class SharpnessAwareWeights:
    """Moves the weights of each row of a stack to the worst ones of a neighbourhood, and back.

    These are, to first order, `w + ρ g / ‖g‖`, with the gradient `g` of the batch and its norm over all parameters.

    Args:
        rho: the radius ρ of each row, `[rows]`, on the device of the weights.

    References:
        Foret et al. 2020, "Sharpness-Aware Minimization for Efficiently Improving Generalization", arXiv:2010.01412.
    """

    def __init__(self, rho: Tensor) -> None:
        self.rho = rho

    @contextmanager
    def perturbed(
        self, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor], gradients: Sequence[Tensor | None]
    ) -> Iterator[None]:
        """Move the weights in place; at the end, restore their values and those of the buffers.

        Buffers, such as running means, thus do not depend on what is computed at the other weights.

        Args:
            weights: the parameters, `[rows, ...]` each.
            buffers: the buffers, `[rows, ...]` each.
            gradients: the gradient of each parameter; None for a parameter that the loss does not use.
        """
        tensors = [*weights.values(), *buffers.values()]
        former = [x.clone() for x in tensors]
        used = [(x, g) for x, g in zip(weights.values(), gradients, strict=True) if g is not None]
        with torch.no_grad():
            norms = row_norms([g for _, g in used])
            factors = torch.where(norms > 0, self.rho.to(norms) / norms, torch.zeros_like(norms))
            for (x, _), change in zip(used, scale_rows([g for _, g in used], factors), strict=True):
                x.add_(change)
        yield
        with torch.no_grad():
            for x, value in zip(tensors, former, strict=True):
                x.copy_(value)

    def select_rows(self, index: Tensor) -> "SharpnessAwareWeights":
        """Return this for the rows at `index`."""
        return SharpnessAwareWeights(self.rho[index])
