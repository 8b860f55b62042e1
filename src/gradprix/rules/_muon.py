"""Muon: orthogonalized momentum for matrices."""

from gradprix.spaces import log

from ._rule import rule
from .matrix_ops import columns, matmul, rows, transpose
from .ops import maximum, norm, sqrt, where


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
