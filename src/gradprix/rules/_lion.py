"""Sign-based updates of constant magnitude."""

from gradprix.spaces import log

from ._rule import rule
from .ops import sign


@rule(
    "Chen et al. 2023, arXiv:2302.06675, Algorithm 2",
    relation="With β₁ = β₂ = 0 it is sign descent, as Adamax is; otherwise the sign of a mean, kept at another speed.",
    space={"lr": log(1e-5, 1e-2)},
    lr=1e-4,
    beta1=0.9,
    beta2=0.99,
    weight_decay=0.0,
    state={"m": "exp_avg"},
)
def lion(h, t, x, g, m):
    """Every weight moves by η, in the direction of the sign of a mean of gradients."""
    c = h.beta1 * m + (1 - h.beta1) * g
    m = h.beta2 * m + (1 - h.beta2) * g
    x = (1 - h.lr * h.weight_decay) * x
    x = x - h.lr * sign(c)
    return x, m
