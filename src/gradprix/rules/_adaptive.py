"""Adaptive learning rates per coordinate, from the magnitudes of past gradients."""

from gradprix.spaces import log, one_minus

from ._rule import State, rule
from .ops import maximum, sqrt


@rule(
    "Duchi, Hazan & Singer 2011, JMLR 12:2121-2159, eq. 1 with a diagonal matrix",
    relation="RMSProp with α = 1 − 1/t and learning rate η/√t, which only decreases: no gradient is forgotten.",
    space={"lr": log(1e-3, 1)},
    tuned=("weight_decay", "eps"),
    lr=1e-2,
    lr_decay=0.0,
    initial_accumulator_value=0.0,
    eps=1e-10,
    state={"s": State("sum", init="initial_accumulator_value")},
)
def adagrad(h, t, x, g, s):
    """SGD with per-coordinate learning rates that decrease with the sum of squared gradients."""
    s = s + g**2
    x = x - h.lr / (1 + (t - 1) * h.lr_decay) * g / (sqrt(s) + h.eps)
    return x, s


@rule(
    "Tieleman & Hinton 2012, Lecture 6.5; centered: Graves 2013, arXiv:1308.0850, eqs. 38-45",
    relation="Adam with β₁ = 0 and no bias correction.",
    space={"lr": log(1e-4, 1e-1), "alpha": one_minus(1e-3, 0.5)},
    tuned=("alpha", "eps"),
    lr=1e-2,
    alpha=0.99,
    eps=1e-8,
    momentum=0.0,
    centered=False,
    # torch stores the raw second moment v = s + m². The variance s, stored instead, is never negative by rounding.
    state={
        "s": State(
            "square_avg",
            stored=lambda h, s, m=None, **_: s + m**2 if h.centered else s,
            loaded=lambda h, s, m=None, **_: maximum(s - m**2, 0) if h.centered else s,
        ),
        "m": State("grad_avg", when="centered"),
        "b": State("momentum_buffer", when="momentum"),
    },
)
def rmsprop(h, t, x, g, s, m, b):
    """SGD with per-coordinate learning rates, divided by a running RMS of the gradients."""
    s = h.alpha * s + (h.alpha * (1 - h.alpha) * (g - m) ** 2 if h.centered else (1 - h.alpha) * g**2)
    m = h.alpha * m + (1 - h.alpha) * g if h.centered else g
    d = g / (sqrt(s) + h.eps)
    b = h.momentum * b + d if h.momentum else d
    x = x - h.lr * b
    return x, s, m, b


@rule(
    "Zeiler 2012, arXiv:1212.5701, Algorithm 1",
    relation="RMSProp with the learning rate replaced by a running RMS of its own updates.",
    space={"lr": log(1e-2, 10)},
    tuned=("rho", "weight_decay"),
    lr=1.0,
    rho=0.9,
    eps=1e-6,
    state={"v": "square_avg", "u": "acc_delta"},
)
def adadelta(h, t, x, g, v, u):
    """RMSProp in units of past updates, so that no learning rate is needed."""
    v = h.rho * v + (1 - h.rho) * g**2
    d = sqrt(u + h.eps) / sqrt(v + h.eps) * g
    u = h.rho * u + (1 - h.rho) * d**2
    x = x - h.lr * d
    return x, v, u


# The paper has no ε: here it keeps the denominators of weights without gradients from zero.
@rule(
    "Choudhury et al. 2024, arXiv:2403.02648",
    relation="Adagrad without the square root: if gradients are c times as large, its steps are 1/c times as large.",
    space={"lr": log(1e-3, 1), "delta": log(1e-3, 10)},
    tuned=("weight_decay", "delta"),
    lr=1e-2,
    delta=0.0,
    eps=1e-8,
    state={"m": "m", "b": "b"},
)
def kate(h, t, x, g, m, b):
    """Adagrad whose progress does not depend on the scale of the data."""
    b = b + g**2
    m = m + h.delta * g**2 + g**2 / (b + h.eps)
    x = x - h.lr * sqrt(m) * g / (b + h.eps)
    return x, m, b
