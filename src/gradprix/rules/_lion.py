"""Sign-based updates of constant magnitude."""

from gradprix.spaces import log

from ._rule import rule
from .ops import sign


@rule(
    "Chen et al. 2023, arXiv:2302.06675, Algorithm 2",
    relation="Sign descent if β₁ = β₂ = 0, as Adamax; otherwise the sign of an average with two decay rates.",
    space={"lr": log(1e-5, 1e-2)},
    tuned=("weight_decay", "beta2"),
    lr=1e-4,
    beta1=0.9,
    beta2=0.99,
    weight_decay=0.0,
    state={"m": "exp_avg"},
)
def lion(h, t, x, g, m):
    """Sign of an average of gradients: every weight moves by η."""
    c = h.beta1 * m + (1 - h.beta1) * g
    m = h.beta2 * m + (1 - h.beta2) * g
    x = (1 - h.lr * h.weight_decay) * x
    x = x - h.lr * sign(c)
    return x, m
