"""Sharpness-aware minimization (SAM): a step along the gradient at the worst weights of a neighbourhood."""

from collections.abc import Mapping, Sequence

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

    def perturb(self, weights: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor]:
        """Add the perturbation to the weights in place, and return their former values.

        Args:
            weights: the parameters, `[rows, ...]` each.
            gradients: the gradient of each parameter; None for a parameter that the loss does not use.
        """
        former = [x.clone() for x in weights]
        used = [(x, g) for x, g in zip(weights, gradients, strict=True) if g is not None]
        norms = row_norms([g for _, g in used])
        factors = torch.where(norms > 0, self.rho.to(norms) / norms, torch.zeros_like(norms))
        for (x, _), change in zip(used, scale_rows([g for _, g in used], factors), strict=True):
            x.add_(change)
        return former

    def select_rows(self, index: Tensor) -> "SharpnessAwareWeights":
        """Return this for the rows at `index`."""
        return SharpnessAwareWeights(self.rho[index])


def restore(tensors: Mapping[str, Tensor], former: Sequence[Tensor]) -> None:
    """Copy former values back to tensors, in the order of the mapping."""
    for x, value in zip(tensors.values(), former, strict=True):
        x.copy_(value)
