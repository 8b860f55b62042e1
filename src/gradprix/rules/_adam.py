"""Adam and its closest variants."""

from gradprix.spaces import log

from ._rule import State, rule
from .ops import maximum, sqrt, where

SPACE = {"lr": log(1e-4, 1e-1)}


@rule(
    "Kingma & Ba 2015, arXiv:1412.6980, Algorithm 1; amsgrad: Reddi et al. 2018, arXiv:1904.09237, Algorithm 2",
    relation="RMSProp with momentum and bias correction.",
    space=SPACE,
    tuned=("beta1", "beta2"),
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    amsgrad=False,
    state={"m": "exp_avg", "v": "exp_avg_sq", "v_max": State("max_exp_avg_sq", when="amsgrad")},
)
def adam(h, t, x, g, m, v, v_max):
    """Running mean of gradients divided by their running RMS, both bias-corrected."""
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    v_max = maximum(v_max, v) if h.amsgrad else v
    m_hat = m / (1 - h.beta1**t)
    v_hat = v_max / (1 - h.beta2**t)
    x = x - h.lr * m_hat / (sqrt(v_hat) + h.eps)
    return x, m, v, v_max


@rule(
    "Loshchilov & Hutter 2019, arXiv:1711.05101, Algorithm 2",
    relation="Adam if weight decay is 0; weight decay affects neither average.",
    space=SPACE,
    tuned=("weight_decay", "beta2"),
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=1e-2,
    amsgrad=False,
    state={"m": "exp_avg", "v": "exp_avg_sq", "v_max": State("max_exp_avg_sq", when="amsgrad")},
)
def adamw(h, t, x, g, m, v, v_max):
    """Adam with decoupled weight decay."""
    x = (1 - h.lr * h.weight_decay) * x
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    v_max = maximum(v_max, v) if h.amsgrad else v
    m_hat = m / (1 - h.beta1**t)
    v_hat = v_max / (1 - h.beta2**t)
    x = x - h.lr * m_hat / (sqrt(v_hat) + h.eps)
    return x, m, v, v_max


@rule(
    "Kingma & Ba 2015, arXiv:1412.6980, Algorithm 2",
    relation="Adam with the infinity norm of past gradients; sign descent if β₁ = β₂ = 0.",
    space={"lr": log(1e-4, 1e-1)},
    tuned=("beta1", "beta2"),
    lr=2e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    state={"m": "exp_avg", "u": "exp_inf"},
)
def adamax(h, t, x, g, m, u):
    """Adam with the second moment replaced by a decaying maximum."""
    m = h.beta1 * m + (1 - h.beta1) * g
    u = maximum(h.beta2 * u, abs(g) + h.eps)
    x = x - h.lr / (1 - h.beta1**t) * m / u
    return x, m, u


@rule(
    "Dozat 2016, ICLR workshop OM0jvwB8jIp57ZJjtNEZ, Algorithm 2, with torch's μ schedule",
    relation="Adam if β₁ = 0; otherwise Adam with a look-ahead of one momentum step.",
    space=SPACE,
    tuned=("beta1", "beta2"),
    lr=2e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    momentum_decay=4e-3,
    state={"m": "exp_avg", "v": "exp_avg_sq", "mu_product": State("mu_product", kind="scalar", init=1.0)},
)
def nadam(h, t, x, g, m, v, mu_product):
    """Adam with Nesterov momentum."""
    mu = h.beta1 * (1 - 0.5 * 0.96 ** (t * h.momentum_decay))
    mu_next = h.beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * h.momentum_decay))
    mu_product = mu_product * mu
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    m_hat = mu_next / (1 - mu_product * mu_next) * m + (1 - mu) / (1 - mu_product) * g
    v_hat = v / (1 - h.beta2**t)
    x = x - h.lr * m_hat / (sqrt(v_hat) + h.eps)
    return x, m, v, mu_product


@rule(
    "Liu et al. 2020, arXiv:1908.03265, Algorithm 2, with torch's threshold ρ > 5",
    relation="Adam with a built-in warm-up: plain momentum until the second moment is reliable.",
    space=SPACE,
    tuned=("beta1", "beta2"),
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    state={"m": "exp_avg", "v": "exp_avg_sq"},
)
def radam(h, t, x, g, m, v):
    """Rectified Adam: smaller steps while the second moment is estimated from few gradients."""
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    m_hat = m / (1 - h.beta1**t)
    rho_inf = 2 / (1 - h.beta2) - 1
    rho = rho_inf - 2 * t * h.beta2**t / (1 - h.beta2**t)
    p = maximum(rho_inf, 5)  # up to 4, the root is undefined and unused
    q = maximum(rho, 5)
    r = sqrt((q - 4) * (q - 2) * p / ((p - 4) * (p - 2) * q))
    d = where(rho > 5, r * sqrt(1 - h.beta2**t) * m_hat / (sqrt(v) + h.eps), m_hat)
    x = x - h.lr * d
    return x, m, v
