"""Second moments of matrices stored as one number per row and one per column."""

from gradprix.spaces import log

from ._rule import State, rule
from .matrix_ops import column_means, epsilon, exists, row_means
from .ops import maximum, minimum, size, sqrt, total


# As torch's class: without momentum and warm-up; the moments are means, not sums, and the learning rate is bounded by
# `lr` instead of 0.01.
@rule(
    "Shazeer & Stern 2018, arXiv:1804.04235, Algorithms 4-6, in the form that torch implements",
    relation="For vectors, RMSProp with a decay rate that grows to 1 and steps relative to the size of the weights; "
    "for matrices, row and column means approximate the second moment.",
    space={"lr": log(1e-4, 1)},
    tuned=("weight_decay",),
    lr=1e-2,
    beta2_decay=-0.8,
    eps1=0.0,
    eps2=1e-3,
    d=1.0,
    weight_decay=0.0,
    tuples={"eps": ("eps1", "eps2")},
    domains={"beta2_decay": (-10.0, 0.0), "d": (1.0, float("inf"))},
    state={
        "r": State("row_var", kind="rows"),
        "c": State("col_var", kind="columns"),
        "v": State("variance", kind="vector"),
    },
    scope="tensor",
)
def adafactor(h, t, x, g, r, c, v):
    """Adaptive steps relative to the size of the weights, with a memory of a row and a column for each matrix."""
    e = h.eps1 if h.eps1 else epsilon(x)
    rate = maximum(h.eps2, sqrt(total(x**2) / size(x))) * minimum(h.lr, 1 / sqrt(t))
    x = (1 - h.lr * h.weight_decay) * x
    s = g**2
    r = r + t**h.beta2_decay * (row_means(s) - r) if exists(r) else r
    c = c + t**h.beta2_decay * (column_means(s) - c) if exists(c) else c
    v = v + t**h.beta2_decay * (s - v) if exists(v) else v
    v_hat = r / maximum(column_means(r), e) * c if exists(r) else v
    u = g / sqrt(maximum(v_hat, e * e))
    x = x - rate / maximum(1, sqrt(total(u**2) / size(u)) / h.d) * u
    return x, r, c, v


@rule(
    "Luo et al. 2023, arXiv:2307.02047, Algorithm 2, with the decoupled weight decay of its authors' code",
    relation="For vectors, RMSProp with steps clipped to an RMS of d, and momentum; for matrices, the momentum is also "
    "divided by a factored moment of its distance to the step.",
    space={"lr": log(1e-5, 1e-2)},
    tuned=("weight_decay", "beta2"),
    lr=2e-4,
    beta1=0.9,
    beta2=0.999,
    beta3=0.9999,
    eps1=1e-30,
    eps2=1e-16,
    d=1.0,
    weight_decay=0.0,
    tuples={"eps": ("eps1", "eps2")},
    state={
        "m": "exp_avg",
        "r": State("exp_avg_sq_row", kind="rows"),
        "c": State("exp_avg_sq_col", kind="columns"),
        "v": State("exp_avg_sq", kind="vector"),
        "p": State("exp_avg_res_row", kind="rows"),
        "q": State("exp_avg_res_col", kind="columns"),
    },
    scope="tensor",
)
def came(h, t, x, g, m, r, c, v, p, q):
    """Adafactor with momentum, and smaller steps for weights where the momentum is far from the newest step."""
    s = g**2 + h.eps1
    r = h.beta2 * r + (1 - h.beta2) * row_means(s) if exists(r) else r
    c = h.beta2 * c + (1 - h.beta2) * column_means(s) if exists(c) else c
    v = h.beta2 * v + (1 - h.beta2) * s if exists(v) else v
    u = g / sqrt(r / column_means(r) * c) if exists(r) else g / sqrt(v)
    u = u / maximum(1, sqrt(total(u**2) / size(u)) / h.d)
    m = h.beta1 * m + (1 - h.beta1) * u
    s = (u - m) ** 2 + h.eps2
    p = h.beta3 * p + (1 - h.beta3) * row_means(s) if exists(p) else p
    q = h.beta3 * q + (1 - h.beta3) * column_means(s) if exists(q) else q
    x = (1 - h.lr * h.weight_decay) * x
    x = x - h.lr * (m / sqrt(p / column_means(p) * q) if exists(p) else m)
    return x, m, r, c, v, p, q
