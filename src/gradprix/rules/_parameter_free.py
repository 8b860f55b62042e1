"""Rules that estimate the learning rate during training; `lr` multiplies the estimate and is 1 by default.

The estimate is one number for all tensors of a parameter group: the distance between the initial weights and the
solution, or the distance covered so far.
"""

from gradprix.spaces import log

from ._rule import State, rule
from .ops import maximum, minimum, sqrt, total, where

SPACE = {"lr": log(1e-1, 10)}


@rule(
    "Ivgi, Hinder & Carmon 2023, arXiv:2302.12022, eqs. 3-4, with the initial distance of its authors' code",
    relation="SGD with the largest distance from the initial weights so far, over the root of the sum of squared "
    "gradient norms, as learning rate.",
    space={**SPACE, "reps_rel": log(1e-8, 1e-2)},
    tuned=("reps_rel", "weight_decay"),
    lr=1.0,
    reps_rel=1e-6,
    eps=1e-8,
    state={
        "x0": State("initial", init="x"),
        "r": State("rbar", kind="scalar", shared=True),
        "s": State("G", kind="scalar", init="eps", shared=True),
    },
    counts_steps=False,
)
def dog(h, t, x, g, x0, r, s):
    """SGD with a learning rate from distances and gradients (Distance over Gradients)."""
    reach = h.reps_rel * (1 + sqrt(total(x0**2, over="group")))
    r = maximum(maximum(r, reach), sqrt(total((x - x0) ** 2, over="group")))
    s = s + total(g**2, over="group")
    x = x - h.lr * r / sqrt(s) * g
    return x, x0, r, s


@rule(
    "Defazio & Mishchenko 2023, arXiv:2301.07733, Algorithm 5, with the denominator of its authors' code",
    relation="RMSProp with the learning rate d η if β₁ = 0, where d estimates the distance to the solution.",
    space=SPACE,
    tuned=("weight_decay", "beta2"),
    lr=1.0,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    d0=1e-6,
    growth_rate=0.0,
    state={
        "m": "exp_avg",
        "v": "exp_avg_sq",
        "s": "s",
        "r": State("numerator_weighted", kind="scalar", shared=True),
        "d": State("d", kind="scalar", init="d0", shared=True),
    },
    counts_steps=False,
)
def dadapt_adam(h, t, x, g, m, v, s, r, d):
    """Adam with a learning rate that is estimated from inner products of gradients and steps."""
    rate = d * h.lr
    keep = sqrt(h.beta2)
    r = keep * r + (1 - keep) * rate * total(g * s / (sqrt(v) + h.eps), over="group")
    m = h.beta1 * m + rate * (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    s = keep * s + rate * (1 - keep) * g
    length = total(abs(s), over="group")
    d_hat = where(length > 0, r / ((1 - keep) * length), d)
    d = maximum(d, minimum(d_hat, h.growth_rate * d) if h.growth_rate else d_hat)
    x = (1 - h.weight_decay * rate) * x
    x = x - m / (sqrt(v) + h.eps)
    return x, m, v, s, r, d


@rule(
    "Mishchenko & Defazio 2024, arXiv:2306.06101, with the estimate of its authors' code, in which the "
    "averages decay by √β₂",
    relation="Adam with the learning rate d η, where d estimates the distance to the solution; without bias correction "
    "by default.",
    space=SPACE,
    tuned=("weight_decay", "beta2"),
    lr=1.0,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    d0=1e-6,
    d_coef=1.0,
    use_bias_correction=False,
    safeguard_warmup=False,
    state={
        "x0": State("p0", init="x"),
        "m": "exp_avg",
        "v": "exp_avg_sq",
        "s": "s",
        "r": State("d_numerator", kind="scalar", shared=True),
        "d": State("d", kind="scalar", init="d0", shared=True),
        "p1": State("beta1_power", kind="scalar", init=1.0, when="use_bias_correction", shared=True),
        "p2": State("beta2_power", kind="scalar", init=1.0, when="use_bias_correction", shared=True),
    },
    counts_steps=False,
)
def prodigy(h, t, x, g, x0, m, v, s, r, d, p1, p2):
    """Adam with a learning rate that is estimated from inner products of gradients and distances."""
    p1 = h.beta1 * p1 if h.use_bias_correction else h.beta1
    p2 = h.beta2 * p2 if h.use_bias_correction else h.beta2
    rate = d * h.lr * sqrt(1 - p2) / (1 - p1) if h.use_bias_correction else d * h.lr
    keep = sqrt(h.beta2)
    r = keep * r + d / h.d0 * rate * total(g * (x0 - x), over="group")
    m = h.beta1 * m + d * (1 - h.beta1) * g
    v = h.beta2 * v + d * d * (1 - h.beta2) * g**2
    s = keep * s + d / h.d0 * (d if h.safeguard_warmup else rate) * g
    length = total(abs(s), over="group")
    d_hat = where(length > 0, h.d_coef * r / length, 0)
    d = maximum(d, d_hat)
    x = (1 - h.weight_decay * rate) * x - rate * m / (sqrt(v) + d * h.eps)
    return x, x0, m, v, s, r, d, p1, p2
