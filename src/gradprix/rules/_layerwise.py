"""Rules that measure the gradients or the step of each tensor by its norm."""

from gradprix.spaces import log

from ._rule import rule
from .ops import minimum, sqrt, total, where


@rule(
    "You et al. 2020, arXiv:1904.00962, Algorithm 2, with φ the identity",
    relation="AdamW with the step of each tensor rescaled to η times the norm of its weights.",
    space={"lr": log(1e-4, 1e-1)},
    tuned=("weight_decay", "beta2"),
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-6,
    weight_decay=1e-2,
    state={"m": "exp_avg", "v": "exp_avg_sq"},
)
def lamb(h, t, x, g, m, v):
    """Adam with a trust ratio per tensor, for batches of many thousands of examples."""
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    m_hat = m / (1 - h.beta1**t)
    v_hat = v / (1 - h.beta2**t)
    d = m_hat / (sqrt(v_hat) + h.eps) + h.weight_decay * x
    weights = sqrt(total(x**2))
    length = sqrt(total(d**2))
    ratio = where(minimum(weights, length) > 0, weights / length, 1)
    x = x - h.lr * ratio * d
    return x, m, v
