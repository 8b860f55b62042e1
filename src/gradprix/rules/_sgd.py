"""Gradient descent with or without momentum; the batch size is not part of the rule."""

from gradprix.spaces import log

from ._rule import State, rule
from .ops import where


@rule(
    "Robbins & Monro 1951, doi:10.1214/aoms/1177729586; momentum: Polyak 1964, doi:10.1016/0041-5553(64)90137-5; "
    "Nesterov's form: Sutskever et al. 2013, ICML, eqs. 3-4",
    relation="Plain gradient descent if momentum = 0, for any batch size.",
    space={"lr": log(1e-2, 10)},
    tuned=("momentum", "weight_decay"),
    lr=1e-3,
    momentum=0.0,
    dampening=0.0,
    nesterov=False,
    state={"b": State("momentum_buffer", when="momentum")},
    counts_steps=False,
)
def sgd(h, t, x, g, b):
    """Gradient step, with optional momentum."""
    # As in torch, the first gradient is not dampened.
    damping = where(t > 1, h.dampening, 0)
    b = h.momentum * b + (1 - damping) * g if h.momentum else g
    d = g + h.momentum * b if h.nesterov else b
    x = x - h.lr * d
    return x, b
