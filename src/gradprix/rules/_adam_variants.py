"""Adam with a different momentum: of gradient differences, on two time scales, or of normalized gradients."""

from gradprix.spaces import log

from ._rule import rule
from .ops import clip, maximum, sqrt, where

SPACE = {"lr": log(1e-4, 1e-1)}


# The paper writes β for 1 − β of Adam; here β is as in Adam and in the authors' code.
@rule(
    "Xie et al. 2024, arXiv:2208.06677, Algorithm 1",
    relation="Adam with decay rates β₁ and β₃ if β₂ = 0; otherwise an average of gradient differences is added.",
    space=SPACE,
    tuned=("weight_decay", "beta3"),
    lr=1e-3,
    beta1=0.98,
    beta2=0.92,
    beta3=0.99,
    eps=1e-8,
    weight_decay=0.0,
    state={"m": "exp_avg", "v": "exp_avg_diff", "n": "exp_avg_sq", "p": "previous_grad"},
)
def adan(h, t, x, g, m, v, n, p):
    """Adam with Nesterov momentum, estimated from differences of successive gradients."""
    d = where(t > 1, g - p, 0 * g)
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * d
    n = h.beta3 * n + (1 - h.beta3) * (g + h.beta2 * d) ** 2
    m_hat = m / (1 - h.beta1**t) + h.beta2 / (1 - h.beta2**t) * v
    n_hat = n / (1 - h.beta3**t)
    x = (x - h.lr * m_hat / (sqrt(n_hat) + h.eps)) / (1 + h.lr * h.weight_decay)
    p = g
    return x, m, v, n, p


# The paper also warms up α and β₃; as in the authors' code, that is left to users, who may change the values of a group
# at every step.
@rule(
    "Pagliardini, Ablin & Grangier 2025, arXiv:2409.03137, Algorithm 1",
    relation="AdamW if α = 0; otherwise α times a much slower average of gradients is added to the momentum.",
    space=SPACE,
    tuned=("weight_decay", "beta2"),
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    beta3=0.9999,
    alpha=2.0,
    eps=1e-8,
    weight_decay=0.0,
    domains={"alpha": (0.0, float("inf"))},
    state={"m1": "exp_avg_fast", "m2": "exp_avg_slow", "v": "exp_avg_sq"},
)
def ademamix(h, t, x, g, m1, m2, v):
    """AdamW with a mixture of a fast and a slow momentum; the slow one averages over thousands of steps."""
    m1 = h.beta1 * m1 + (1 - h.beta1) * g
    m2 = h.beta3 * m2 + (1 - h.beta3) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    m1_hat = m1 / (1 - h.beta1**t)
    v_hat = v / (1 - h.beta2**t)
    x = (1 - h.lr * h.weight_decay) * x
    x = x - h.lr * (m1_hat + h.alpha * m2) / (sqrt(v_hat) + h.eps)
    return x, m1, m2, v


@rule(
    "Taniguchi et al. 2024, arXiv:2411.02853, Algorithm 2 (clipped, as in its authors' code since November 2024)",
    relation="RMSProp with momentum, where each gradient is divided by the RMS of the previous ones, and clipped.",
    space=SPACE,
    tuned=("weight_decay", "beta2"),
    lr=1e-3,
    beta1=0.9,
    beta2=0.9999,
    eps=1e-6,
    weight_decay=0.0,
    state={"m": "exp_avg", "v": "exp_avg_sq"},
)
def adopt(h, t, x, g, m, v):
    """Adam normalized by the second moment of previous gradients only, so that it converges for any β₂."""
    c = (t - 1) ** 0.25  # 0 at the first step, which only initializes the second moment
    m = h.beta1 * m + (1 - h.beta1) * clip(g / maximum(sqrt(v), h.eps), -c, c)
    rho = where(t > 1, h.beta2, 0)
    v = rho * v + (1 - rho) * g**2
    rate = where(t > 1, h.lr, 0)
    x = (1 - rate * h.weight_decay) * x
    x = x - rate * m
    return x, m, v
