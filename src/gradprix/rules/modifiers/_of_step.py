"""Modifiers of the step: they take the direction of the base, and move the weights themselves."""

from gradprix.rules.ops import maximum, sign, size, total, where

from ._base_calls import decayed, direction
from ._modifier import modifier


@modifier(
    "Liang et al. 2024, arXiv:2411.16085, Algorithm 1, with the mask divided by its mean as in its authors' code",
    relation="Equal to {base} if every coordinate of the step has the sign of its gradient.",
)
def cautious(h, t, x, g):
    """Skips the coordinates whose step has another sign than the gradient, and lengthens the others to make up."""
    u = direction(x, g)
    agreement = maximum(sign(u) * sign(g), 0)
    share = total(agreement) / size(agreement)
    x = decayed(x)
    x = x - h.lr / maximum(share, 1e-3) * agreement * u
    return x


@modifier(
    "Chen et al. 2025, arXiv:2510.12402, Algorithm 1",
    relation="Equal to {base} if weight decay is 0.",
)
def cautious_decay(h, t, x, g):
    """Decays only the weights that the step moves towards zero."""
    u = direction(x, g)
    shrinking = where(sign(u) * sign(x) >= 0, x, 0 * x)
    x = x - h.lr * h.weight_decay * shrinking
    x = x - h.lr * u
    return x


@modifier(
    "Loshchilov & Hutter 2019, arXiv:1711.05101, Algorithms 1 and 2",
    relation="Equal to {base} if weight decay is 0.",
)
def decoupled(h, t, x, g):
    """Shrinks the weights by weight decay directly, not through the gradient."""
    u = direction(x, g)
    x = (1 - h.lr * h.weight_decay) * x
    x = x - h.lr * u
    return x
