"""Rules that measure the gradients or the step of each tensor by its norm."""

from gradprix.spaces import log

from ._rule import State, rule
from .ops import minimum, sqrt, total, where


@rule(
    "You, Gitman & Ginsburg 2017, arXiv:1708.03888, Algorithm 1",
    relation="SGD with momentum, and with the rate η · trust_coefficient ‖x‖ / (‖g‖ + λ ‖x‖) for each tensor; η if one "
    "of the norms is zero.",
    space={"lr": log(1e-1, 1e2)},
    tuned=("weight_decay", "momentum"),
    lr=1.0,
    momentum=0.9,
    weight_decay=0.0,
    trust_coefficient=1e-3,
    state={"b": State("momentum_buffer", when="momentum")},
)
def lars(h, t, x, g, b):
    """SGD with a learning rate per tensor, for batches of many thousands of examples."""
    length = sqrt(total(x**2))
    slope = sqrt(total(g**2))
    ratio = where(minimum(length, slope) > 0, h.trust_coefficient * length / (slope + h.weight_decay * length), 1)
    d = h.lr * ratio * (g + h.weight_decay * x)
    b = h.momentum * b + d if h.momentum else d
    x = x - b
    return x, b


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


@rule(
    "Ginsburg et al. 2019, arXiv:1905.11286, Algorithm 1; grad_averaging: its authors' code",
    relation="Gradient descent in steps of length η for each tensor if β₁ = β₂ = 0.",
    space={"lr": log(1e-3, 1)},
    tuned=("weight_decay", "beta1"),
    lr=1e-2,
    beta1=0.95,
    beta2=0.98,
    eps=1e-8,
    weight_decay=0.0,
    grad_averaging=False,
    state={"m": "exp_avg", "v": State("exp_avg_sq", kind="scalar")},
    counts_steps=False,
)
def novograd(h, t, x, g, m, v):
    """Momentum of gradients that are divided by a running norm, one number per tensor."""
    n = total(g**2)
    v = where(v > 0, h.beta2 * v + (1 - h.beta2) * n, n)
    d = g / (sqrt(v) + h.eps) + h.weight_decay * x
    m = h.beta1 * m + ((1 - h.beta1) * d if h.grad_averaging else d)
    x = x - h.lr * m
    return x, m, v
