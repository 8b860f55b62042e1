"""Muon: orthogonalized momentum for matrices."""

from gradprix.spaces import log

from ._rule import ANY, rule
from .matrix_ops import axpy, columns, lerp, rows
from .newton_schulz import newton_schulz
from .ops import maximum, sqrt

SIGNED = (-ANY[1], ANY[1])


@rule(
    "Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; match_rms_adamw: Liu et al. 2025, arXiv:2502.16982",
    relation="SGD with Nesterov momentum, where the singular values of the step are replaced by values near 1.",
    space={"lr": log(1e-4, 1e-1)},
    tuned=("weight_decay", "momentum"),
    lr=1e-3,
    weight_decay=0.1,
    momentum=0.95,
    nesterov=True,
    ns_a=3.4445,
    ns_b=-4.775,
    ns_c=2.0315,
    eps=1e-7,
    ns_steps=5,
    match_rms_adamw=True,
    state={"b": "momentum_buffer"},
    domains=dict.fromkeys(("ns_a", "ns_b", "ns_c"), SIGNED) | {"ns_steps": (0.0, 100.0)},
    counts_steps=False,
    scope="tensor",
)
def muon(h, t, x, g, b):
    """Momentum for matrices, orthogonalized approximately by a Newton-Schulz iteration."""
    b = lerp(b, g, 1 - h.momentum)
    d = lerp(g, b, h.momentum) if h.nesterov else b
    o = newton_schulz(d, h.eps, h.ns_a, h.ns_b, h.ns_c, h.ns_steps)
    rms = 0.2 * sqrt(maximum(rows(x), columns(x))) if h.match_rms_adamw else sqrt(maximum(rows(x) / columns(x), 1))
    x = (1 - h.lr * h.weight_decay) * x
    x = axpy(-h.lr * rms, o, x)
    return x, b
