"""Adam with another denominator: centered, additive, bounded, smoothed, or of earlier gradients."""

from gradprix.spaces import log

from ._rule import State, rule
from .ops import clip, maximum, minimum, sign, sqrt, where

SPACE = {"lr": log(1e-4, 1e-1)}


@rule(
    "Zhuang et al. 2020, arXiv:2010.07468, Algorithm 2",
    relation="Adam whose second moment is that of the difference between gradient and running mean.",
    space=SPACE,
    tuned=("eps", "beta2"),
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-16,
    state={"m": "exp_avg", "s": "exp_avg_var"},
)
def adabelief(h, t, x, g, m, s):
    """Adam with large steps where gradients are close to their running mean."""
    m = h.beta1 * m + (1 - h.beta1) * g
    s = h.beta2 * s + (1 - h.beta2) * (g - m) ** 2 + h.eps
    m_hat = m / (1 - h.beta1**t)
    s_hat = s / (1 - h.beta2**t)
    x = x - h.lr * m_hat / (sqrt(s_hat) + h.eps)
    return x, m, s


# As in the paper's Algorithm 2, there is no bias correction.
@rule(
    "Zaheer et al. 2018, Adaptive methods for nonconvex optimization, NeurIPS 31, Algorithm 2",
    relation="Adam, but v moves by (1 − β₂) g² towards g²; if β₁ = 0 and v < g², Adagrad with rate η / √(1 − β₂).",
    space={"lr": log(1e-3, 1)},
    tuned=("eps", "beta1"),
    lr=1e-2,
    beta1=0.9,
    beta2=0.999,
    eps=1e-3,
    initial_accumulator_value=1e-6,
    state={"m": "exp_avg", "v": State("exp_avg_sq", init="initial_accumulator_value")},
)
def yogi(h, t, x, g, m, v):
    """Adam with a second moment that decreases slowly after large gradients."""
    m = h.beta1 * m + (1 - h.beta1) * g
    v = v - (1 - h.beta2) * sign(v - g**2) * g**2
    x = x - h.lr * m / (sqrt(v) + h.eps)
    return x, m, v


# As in the authors' code, the bounds follow the schedule of the learning rate. That code takes the initial learning
# rate of a group for `base_lr`.
@rule(
    "Luo et al. 2019, arXiv:1902.09843, Algorithm 2, with the bounds of its authors' code",
    relation="Adam at first, and in the limit SGD with momentum (dampened by β₁) and rate η · final_lr / base_lr.",
    space=SPACE,
    tuned=("beta2", "weight_decay"),
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    final_lr=0.1,
    base_lr=1e-3,
    gamma=1e-3,
    eps=1e-8,
    domains={"gamma": (1e-9, 1.0), "base_lr": (1e-12, float("inf"))},
    state={"m": "exp_avg", "v": "exp_avg_sq"},
)
def adabound(h, t, x, g, m, v):
    """Adam with the learning rate of each weight in bounds that converge to that of SGD."""
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    final = h.lr * h.final_lr / h.base_lr
    low = final * (1 - 1 / (h.gamma * t + 1))
    high = final * (1 + 1 / (h.gamma * t))
    rate = h.lr * sqrt(1 - h.beta2**t) / (1 - h.beta1**t)
    # A rate for each weight: `0 * v` makes a tensor of the number, which torch would divide in two roundings.
    x = x - clip((rate + 0 * v) / (sqrt(v) + h.eps), low, high) * m
    return x, m, v


@rule(
    "Ding et al. 2019, arXiv:1910.12249, and its authors' code",
    relation="Adam (with ε before the bias correction) if β₃ = 0.",
    space=SPACE,
    tuned=("beta3", "weight_decay"),
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    beta3=0.999,
    eps=1e-8,
    state={"m": "exp_avg", "v": "exp_avg_sq", "e": "exp_avg_lr"},
)
def adamod(h, t, x, g, m, v, e):
    """Adam with the learning rate of each weight at most its own running mean, which removes large rates early on."""
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    # `0 * v` makes a tensor of the number, which torch would divide in two roundings.
    rate = (h.lr * sqrt(1 - h.beta2**t) / (1 - h.beta1**t) + 0 * v) / (sqrt(v) + h.eps)
    e = h.beta3 * e + (1 - h.beta3) * rate
    x = x - minimum(rate, e) * m
    return x, m, v, e


# The bias correction of the momentum assumes a constant learning rate, as in the paper; the authors' code weights it
# with past learning rates.
@rule(
    "Ziyin, Wang & Ueda 2020, arXiv:2002.04839, Algorithm 1",
    relation="Adam if β₁ = 0; otherwise the momentum is that of normalized gradients.",
    space=SPACE,
    tuned=("beta2", "beta1"),
    lr=4e-4,
    beta1=0.9,
    beta2=0.999,
    eps=1e-15,
    state={"m": "exp_avg", "v": "exp_avg_sq"},
)
def laprop(h, t, x, g, m, v):
    """Adam with normalization before momentum, so that β₁ and β₂ can be chosen independently."""
    v = h.beta2 * v + (1 - h.beta2) * g**2
    v_hat = v / (1 - h.beta2**t)
    m = h.beta1 * m + (1 - h.beta1) * h.lr * g / (sqrt(v_hat) + h.eps)
    x = x - m / (1 - h.beta1**t)
    return x, m, v


@rule(
    "Zhuang et al. 2021, arXiv:2110.05454, with the bias correction of Optax",
    relation="AdaBelief without momentum, normalized by previous gradients only; the first step is that of SGD.",
    space=SPACE,
    tuned=("eps", "beta2"),
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-16,
    state={"m": "exp_avg", "s": "exp_avg_var"},
)
def acprop(h, t, x, g, m, s):
    """RMSProp centered by a running mean, and normalized by previous gradients only."""
    s_hat = s / (1 - h.beta2 ** maximum(t - 1, 1))
    x = x - h.lr * g / where(t > 1, sqrt(s_hat) + h.eps, 1 + h.eps)
    m = h.beta1 * m + (1 - h.beta1) * g
    s = h.beta2 * s + (1 - h.beta2) * (g - m) ** 2 + h.eps
    return x, m, s
