"""Updates by the sign of the gradient: its magnitude has no effect, or only through an average."""

from gradprix.spaces import log

from ._rule import State, rule
from .ops import clip, maximum, sign, sqrt


@rule(
    "Bernstein et al. 2018, arXiv:1802.04434, Algorithm 2",
    relation="Lion with β₁ = β₂, the decay of the momentum; sign descent if momentum = 0.",
    space={"lr": log(1e-5, 1e-2)},
    tuned=("momentum", "weight_decay"),
    lr=1e-4,
    momentum=0.9,
    weight_decay=0.0,
    state={"m": State("momentum_buffer", when="momentum")},
)
def signum(h, t, x, g, m):
    """Sign of an average of gradients, with one decay rate."""
    m = h.momentum * m + (1 - h.momentum) * g if h.momentum else g
    x = (1 - h.lr * h.weight_decay) * x
    x = x - h.lr * sign(m)
    return x, m


# The range of the step sizes and the initial one are torch's; after a change of sign, the paper also returns to the
# previous point, which torch and later forms of the algorithm (Rprop−) omit.
@rule(
    "Riedmiller & Braun 1993, doi:10.1109/ICNN.1993.298623, in the form that torch implements",
    relation="Sign descent with a step size for each weight, and η its initial value; sign descent if η⁺ = η⁻ = 1.",
    space={"lr": log(1e-4, 1e-1), "etaplus": log(1.05, 2)},
    tuned=("etaplus",),
    lr=1e-2,
    etaminus=0.5,
    etaplus=1.2,
    step_size_min=1e-6,
    step_size_max=50.0,
    tuples={"etas": ("etaminus", "etaplus"), "step_sizes": ("step_size_min", "step_size_max")},
    domains={"etaminus": (0.0, 1.0), "etaplus": (1.0, float("inf"))},
    state={"p": "prev", "s": State("step_size", init="lr")},
)
def rprop(h, t, x, g, p, s):
    """Sign descent with step sizes that grow while the sign of the gradient stays, and shrink when it changes."""
    c = sign(g * p)
    reversal = maximum(-c, 0)
    s = clip((1 + (h.etaplus - 1) * maximum(c, 0) - (1 - h.etaminus) * reversal) * s, h.step_size_min, h.step_size_max)
    p = (1 - reversal) * g  # no step after a change of sign, and none counted next time
    x = x - s * sign(p)
    return x, p, s


@rule(
    "Cao, Li & Song 2024, arXiv:2412.17107, Algorithm 1",
    relation="AdamW with the direction of each step taken from the newest gradient; AdamW if β₁ = 0.",
    space={"lr": log(1e-4, 1e-1)},
    tuned=("weight_decay", "beta2"),
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    state={"m": "exp_avg", "v": "exp_avg_sq"},
)
def grams(h, t, x, g, m, v):
    """Sizes of Adam's steps, in the direction of the sign of the newest gradient."""
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    m_hat = m / (1 - h.beta1**t)
    v_hat = v / (1 - h.beta2**t)
    x = (1 - h.lr * h.weight_decay) * x
    x = x - h.lr * abs(m_hat / (sqrt(v_hat) + h.eps)) * sign(g)
    return x, m, v
