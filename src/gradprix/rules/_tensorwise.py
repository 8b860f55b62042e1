"""Rules that use norms or matrix operations on whole tensors."""

from gradprix.spaces import log

from ._rule import rule
from .ops import columns, matmul, maximum, minimum, norm, rows, sqrt, transpose, where


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
    scope="tensor",
)
def lamb(h, t, x, g, m, v):
    """Adam with a trust ratio per tensor, for batches of many thousands of examples."""
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    m_hat = m / (1 - h.beta1**t)
    v_hat = v / (1 - h.beta2**t)
    d = m_hat / (sqrt(v_hat) + h.eps) + h.weight_decay * x
    ratio = where(minimum(norm(x), norm(d)) > 0, norm(x) / norm(d), 1)
    x = x - h.lr * ratio * d
    return x, m, v


@rule(
    "Jordan et al. 2024, https://kellerjordan.github.io/posts/muon, and its author's code",
    relation="SGD with Nesterov momentum, where the singular values of the step are replaced by values near 1.",
    space={"lr": log(1e-3, 1)},
    tuned=("weight_decay", "momentum"),
    lr=2e-2,
    momentum=0.95,
    weight_decay=0.0,
    nesterov=True,
    state={"b": "momentum_buffer"},
    scope="tensor",
)
def muon(h, t, x, g, b):
    """Momentum orthogonalized approximately by five steps of a Newton-Schulz iteration."""
    b = h.momentum * b + (1 - h.momentum) * g
    d = h.momentum * b + (1 - h.momentum) * g if h.nesterov else b
    o = where(rows(d) > columns(d), transpose(d), d)  # equivalent, and cheaper for wide matrices
    o = o / (norm(o) + 1e-7)
    for _ in range(5):
        a = matmul(o, transpose(o))
        o = 3.4445 * o + matmul(-4.775 * a + 2.0315 * matmul(a, a), o)
    o = where(rows(d) > columns(d), transpose(o), o)
    x = (1 - h.lr * h.weight_decay) * x
    x = x - h.lr * sqrt(maximum(rows(x) / columns(x), 1)) * o
    return x, b
