"""Preconditioners of Kronecker form: a square matrix for the rows and another for the columns of each matrix."""

from gradprix.spaces import log

from ._rule import State, rule
from .matrix_ops import (
    eigenvectors,
    exists,
    matmul,
    matrix_power,
    order,
    qr,
    reordered,
    transpose,
)
from .ops import sqrt, where


def _side(key, kind):
    """Return the state for a square matrix, which large parameters do not have."""
    return State(key, kind=kind, limit="max_precond_dim")


# As in other implementations, vectors have a diagonal preconditioner, and the roots are taken every few steps.
@rule(
    "Gupta, Koren & Singer 2018, arXiv:1802.09568, Algorithm 1",
    relation="Adagrad for vectors; for matrices, the sum of squares becomes a matrix for rows and one for columns.",
    space={"lr": log(1e-3, 1)},
    tuned=("weight_decay", "eps"),
    lr=1e-1,
    momentum=0.0,
    eps=1e-4,
    precondition_frequency=1.0,
    max_precond_dim=10_000.0,
    domains={"precondition_frequency": (1.0, float("inf"))},
    state={
        "b": State("momentum_buffer", when="momentum"),
        "s": State("sum", kind="vector"),
        "L": _side("left", "rows×rows"),
        "R": _side("right", "columns×columns"),
        "P_L": _side("left_root", "rows×rows"),
        "P_R": _side("right_root", "columns×columns"),
    },
    scope="tensor",
)
def shampoo(h, t, x, g, b, s, L, R, P_L, P_R):
    """Gradient multiplied from both sides by the inverse fourth roots of sums of its squares as a matrix."""
    s = s + g**2 if exists(s) else s
    L = L + matmul(g, transpose(g)) if exists(L) else L
    R = R + matmul(transpose(g), g) if exists(R) else R
    power = where(exists(L) * exists(R), -1 / 4, -1 / 2)  # a side that is too large is left out
    P_L = matrix_power(L, power, h.eps) if (t - 1) % h.precondition_frequency == 0 else P_L
    P_R = matrix_power(R, power, h.eps) if (t - 1) % h.precondition_frequency == 0 else P_R
    d = g / (sqrt(s) + h.eps) if exists(s) else matmul(matmul(P_L, g), P_R)
    b = h.momentum * b + d if h.momentum else d
    x = x - h.lr * b
    return x, b, s, L, R, P_L, P_R


# Convolution kernels have two sides, as matrices with one row per output channel; the authors' class has one side per
# dimension by default. The first step only initializes the preconditioner, as there.
@rule(
    "Vyas et al. 2025, arXiv:2409.11321, Algorithm 3, and its authors' code",
    relation="AdamW in the basis of Shampoo's eigenvectors; AdamW (with ε before the bias correction) for vectors.",
    space={"lr": log(1e-4, 1e-1)},
    tuned=("weight_decay", "beta2"),
    lr=3e-3,
    beta1=0.95,
    beta2=0.95,
    shampoo_beta=0.0,
    eps=1e-8,
    weight_decay=1e-2,
    precondition_frequency=10.0,
    max_precond_dim=10_000.0,
    domains={"precondition_frequency": (1.0, float("inf")), "shampoo_beta": (0.0, 1.0)},
    state={
        "m": "exp_avg",
        "v": "exp_avg_sq",
        "L": _side("left", "rows×rows"),
        "R": _side("right", "columns×columns"),
        "Q_L": _side("left_basis", "rows×rows"),
        "Q_R": _side("right_basis", "columns×columns"),
    },
    scope="tensor",
)
def soap(h, t, x, g, m, v, L, R, Q_L, Q_R):
    """Adam in a slowly rotating basis, in which Shampoo's preconditioner is nearly diagonal."""
    k = (t - 1) % h.precondition_frequency
    d = matmul(matmul(transpose(Q_L), g), Q_R) if t > 1 else 0 * g
    m = h.beta1 * m + (1 - h.beta1) * d
    v = h.beta2 * v + (1 - h.beta2) * d**2
    u = matmul(matmul(Q_L, m / (sqrt(v) + h.eps)), transpose(Q_R))
    x = x - h.lr * sqrt(1 - h.beta2 ** (t - 1)) / (1 - h.beta1 ** (t - 1)) * u if t > 1 else x
    x = (1 - h.lr * h.weight_decay) * x if t > 1 else x
    L = L + (1 - (h.shampoo_beta if h.shampoo_beta else h.beta2)) * (matmul(g, transpose(g)) - L) if exists(L) else L
    R = R + (1 - (h.shampoo_beta if h.shampoo_beta else h.beta2)) * (matmul(transpose(g), g) - R) if exists(R) else R
    m = matmul(matmul(Q_L, m), transpose(Q_R)) if k == 0 else m
    v = reordered(v, order(L, Q_L), order(R, Q_R)) if k == 0 else v
    Q_L = (eigenvectors(L) if t == 1 else qr(L, Q_L)) if k == 0 else Q_L
    Q_R = (eigenvectors(R) if t == 1 else qr(R, Q_R)) if k == 0 else Q_R
    m = matmul(matmul(transpose(Q_L), m), Q_R) if k == 0 else m
    return x, m, v, L, R, Q_L, Q_R
