"""Adam with another numerator: quasi-hyperbolic, optimistic, or with its slow component amplified."""

from gradprix.spaces import log

from ._rule import rule
from .ops import sqrt, where

SPACE = {"lr": log(1e-4, 1e-1)}


@rule(
    "Ma & Yarats 2019, arXiv:1810.06801, with the values that it recommends",
    relation="Adam if ν₁ = ν₂ = 1.",
    space=SPACE,
    tuned=("beta1", "beta2"),
    lr=1e-3,
    beta1=0.995,
    beta2=0.999,
    nu1=0.7,
    nu2=1.0,
    eps=1e-8,
    tuples={"nus": ("nu1", "nu2")},
    state={"m": "exp_avg", "v": "exp_avg_sq"},
)
def qhadam(h, t, x, g, m, v):
    """Adam with weighted means of newest and average value in numerator and denominator."""
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    m_hat = m / (1 - h.beta1**t)
    v_hat = v / (1 - h.beta2**t)
    x = x - h.lr * ((1 - h.nu1) * g + h.nu1 * m_hat) / (sqrt((1 - h.nu2) * g**2 + h.nu2 * v_hat) + h.eps)
    return x, m, v


@rule(
    "Daskalakis et al. 2018, arXiv:1711.00141, Algorithm 1",
    relation="On the same gradients, Adam's iterates, each moved by its last step once more.",
    space=SPACE,
    tuned=("beta1", "beta2"),
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    state={"m": "exp_avg", "v": "exp_avg_sq", "u": "previous_update"},
)
def optimistic_adam(h, t, x, g, m, v, u):
    """Adam that adds each change of its step once more, which damps rotations such as those of adversarial training."""
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    d = m / (1 - h.beta1**t) / (sqrt(v / (1 - h.beta2**t)) + h.eps)
    x = x - h.lr * (2 * d - u)
    u = d
    return x, m, v, u


@rule(
    "Lee et al. 2024, arXiv:2405.20233, in the form with an exponential average (EMA), applied to AdamW",
    relation="AdamW if the amplification is 0; otherwise AdamW on gradients to which their slow average is added.",
    space={**SPACE, "amplification": log(0.1, 10)},
    tuned=("weight_decay", "amplification"),
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    alpha=0.98,
    amplification=2.0,
    eps=1e-8,
    weight_decay=1e-2,
    state={"a": "grok_exp_avg", "m": "exp_avg", "v": "exp_avg_sq"},
)
def grokfast_adamw(h, t, x, g, a, m, v):
    """AdamW with the slow component of the gradient amplified, to generalize sooner after fitting."""
    a = where(t > 1, h.alpha * a + (1 - h.alpha) * g, g)
    d = g + h.amplification * a
    x = (1 - h.lr * h.weight_decay) * x
    m = h.beta1 * m + (1 - h.beta1) * d
    v = h.beta2 * v + (1 - h.beta2) * d**2
    m_hat = m / (1 - h.beta1**t)
    v_hat = v / (1 - h.beta2**t)
    x = x - h.lr * m_hat / (sqrt(v_hat) + h.eps)
    return x, a, m, v
