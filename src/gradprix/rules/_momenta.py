"""SGD with another momentum (quasi-hyperbolic, aggregated, positive-negative, accelerated) or averaged iterates."""

from gradprix.spaces import log, one_minus

from ._rule import State, rule
from .ops import maximum, sqrt, where


def average(h, t, x, ax):
    """Return the average of the iterates."""
    point = ax
    return point


@rule(
    "Polyak & Juditsky 1992, doi:10.1137/0330046; learning rate and weight decay as in torch, after Xu 2011, "
    "arXiv:1107.2490",
    relation="SGD with rate η / (1 + λ η t)^α and decay λ, evaluated at the mean of the iterates from step t0 + 2 on.",
    space={"lr": log(1e-2, 10)},
    tuned=("weight_decay",),
    lr=1e-2,
    lambd=1e-4,
    alpha=0.75,
    t0=1e6,
    domains={"alpha": (0.0, float("inf"))},
    evaluate=average,
    state={"eta": State("eta", kind="scalar", init="lr"), "mu": State("mu", kind="scalar", init=1.0), "ax": "ax"},
)
def asgd(h, t, x, g, eta, mu, ax):
    """SGD with a decreasing learning rate, evaluated at the average of its iterates."""
    x = (1 - h.lambd * eta) * x
    x = x - eta * g
    ax = where(mu == 1, x, ax + (x - ax) * mu)
    eta = h.lr / (1 + h.lambd * h.lr * t) ** h.alpha
    mu = 1 / maximum(1, t - h.t0)
    return x, eta, mu, ax


@rule(
    "Ma & Yarats 2019, arXiv:1810.06801, with the values that it recommends",
    relation="SGD if ν = 0, and SGD with momentum, dampened by β, if ν = 1.",
    space={"lr": log(1e-2, 10), "nu": one_minus(0.03, 1)},
    tuned=("momentum", "nu"),
    lr=1.0,
    momentum=0.999,
    nu=0.7,
    domains={"nu": (0.0, float("inf"))},
    state={"b": "momentum_buffer"},
)
def qhm(h, t, x, g, b):
    """Weighted mean of a step of SGD and a step of momentum."""
    b = h.momentum * b + (1 - h.momentum) * g
    x = x - h.lr * ((1 - h.nu) * g + h.nu * b)
    return x, b


@rule(
    "Lucas et al. 2019, arXiv:1804.00325, with its default K = 3 and a = 0.1",
    relation="SGD with momentum β if β₁ = β₂ = β₃ = β.",
    space={"lr": log(1e-3, 1)},
    tuned=("beta3", "weight_decay"),
    lr=1e-2,
    beta1=0.0,
    beta2=0.9,
    beta3=0.99,
    state={"b1": "momentum_buffer_1", "b2": "momentum_buffer_2", "b3": "momentum_buffer_3"},
)
def aggmo(h, t, x, g, b1, b2, b3):
    """Mean of three momenta on different time scales, whose oscillations damp each other."""
    b1 = h.beta1 * b1 + g
    b2 = h.beta2 * b2 + g
    b3 = h.beta3 * b3 + g
    x = x - h.lr / 3 * (b1 + b2 + b3)
    return x, b1, b2, b3


@rule(
    "Xie et al. 2021, arXiv:2103.17182, and its authors' code",
    relation="SGD with two momenta of decay β₁², of odd and of even steps, if β₂ = 0; otherwise β₂ times the older one "
    "is subtracted.",
    space={"lr": log(1e-2, 10)},
    tuned=("weight_decay", "beta1"),
    lr=1e-1,
    beta1=0.9,
    beta2=1.0,
    weight_decay=0.0,
    domains={"beta2": (0.0, float("inf"))},
    state={"p": "pos_momentum", "n": "neg_momentum"},
)
def pnm(h, t, x, g, p, n):
    """Difference of two momenta, which amplifies the noise of the gradient but not the gradient."""
    x = (1 - h.lr * h.weight_decay) * x
    q = h.beta1**2 * n + (1 - h.beta1**2) * g
    x = x - h.lr / sqrt((1 + h.beta2) ** 2 + h.beta2**2) * ((1 + h.beta2) * q - h.beta2 * p)
    n = p
    p = q
    return x, p, n


@rule(
    "Kidambi et al. 2018, arXiv:1803.05591",
    relation="SGD if ξ = 0; otherwise each step also moves towards a second iterate with long steps.",
    space={"lr": log(1e-3, 1), "xi": log(1, 30)},
    tuned=("weight_decay", "xi"),
    lr=1e-2,
    kappa=1000.0,
    xi=10.0,
    small_const=0.7,
    domains={"kappa": (1.0, float("inf")), "small_const": (1e-3, 1.0)},
    state={"w": State("momentum_buffer", init="x")},
)
def accsgd(h, t, x, g, w):
    """Accelerated SGD: short steps are coupled with long steps of a second iterate, which is robust to noise."""
    c = h.small_const**2 * h.xi / h.kappa
    zeta = h.small_const / (h.small_const + c)
    w = w + c * (x - h.lr * h.kappa / h.small_const * g - w)
    x = w + zeta * (x - h.lr * g - w)
    return x, w
