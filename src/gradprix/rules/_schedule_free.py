"""Schedule-Free: the model is evaluated at an average of the iterates, and no learning-rate schedule is needed.

As in the authors' code, `x` is the point y at which gradients are computed; the average follows from `x` and `z`.
"""

from gradprix.spaces import log

from ._rule import State, rule
from .ops import maximum, minimum, sqrt

STATE = {
    "z": State("z", init="x"),
    "lr_max": State("lr_max", kind="scalar"),
    "weight_sum": State("weight_sum", kind="scalar"),
}
TINY = (1e-3, 1.0)
"""Range of β: at zero the average cannot be computed from y and z, and near zero rounding is amplified by 1 / β."""


def average_by_momentum(h, t, x, z):
    """Return the average of the iterates, given the training point x = (1 − β) z + β average."""
    average = z + (x - z) / h.momentum
    return average


def average_by_beta1(h, t, x, z):
    """Return the average of the iterates, given the training point x = (1 − β₁) z + β₁ average."""
    average = z + (x - z) / h.beta1
    return average


@rule(
    "Defazio et al. 2024, arXiv:2405.15682; warm-up and weights of the average as in its authors' code",
    relation="Plain SGD evaluated at the average of its iterates; gradients are taken between iterate and average.",
    space={"lr": log(1e-1, 1e2)},
    tuned=("weight_decay", "momentum"),
    lr=1.0,
    momentum=0.9,
    weight_decay=0.0,
    warmup_steps=0.0,
    r=0.0,
    weight_lr_power=2.0,
    domains={"momentum": TINY},
    evaluate=average_by_momentum,
    state=STATE,
)
def schedule_free_sgd(h, t, x, g, z, lr_max, weight_sum):
    """SGD with iterate averaging instead of a learning-rate schedule."""
    rate = h.lr * minimum(t / h.warmup_steps, 1) if h.warmup_steps else h.lr
    lr_max = maximum(lr_max, rate)
    weight = t**h.r * lr_max**h.weight_lr_power
    weight_sum = weight_sum + weight
    c = weight / maximum(weight_sum, 1e-300)  # a learning rate of zero has no weight
    d = g + h.weight_decay * x
    x = x + c * (z - x) - rate * (1 - h.momentum * (1 - c)) * d
    z = z - rate * d
    return x, z, lr_max, weight_sum


@rule(
    "Defazio et al. 2024, arXiv:2405.15682, Algorithm 1, with its authors' bias correction in the learning rate; "
    "correct_second_moment: their code since version 1.3",
    relation="Adam with β₁ = 0 evaluated at an average of its iterates; gradients are taken near that average.",
    space={"lr": log(1e-4, 1e-1)},
    tuned=("weight_decay", "beta2"),
    lr=2.5e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0.0,
    warmup_steps=0.0,
    r=0.0,
    weight_lr_power=2.0,
    correct_second_moment=False,
    domains={"beta1": TINY},
    evaluate=average_by_beta1,
    state={"v": "exp_avg_sq", **STATE},
)
def schedule_free_adamw(h, t, x, g, v, z, lr_max, weight_sum):
    """AdamW with iterate averaging instead of a learning-rate schedule and of momentum."""
    v = h.beta2 * v + (1 - h.beta2) * g**2
    warm = h.lr * minimum(t / h.warmup_steps, 1) if h.warmup_steps else h.lr
    rate = warm if h.correct_second_moment else warm * sqrt(1 - h.beta2**t)
    lr_max = maximum(lr_max, rate)
    weight = t**h.r * lr_max**h.weight_lr_power
    weight_sum = weight_sum + weight
    c = weight / maximum(weight_sum, 1e-300)  # a learning rate of zero has no weight
    v_hat = v / (1 - h.beta2**t) if h.correct_second_moment else v
    d = g / (sqrt(v_hat) + h.eps) + h.weight_decay * x
    x = x + c * (z - x) - rate * (1 - h.beta1 * (1 - c)) * d
    z = z - rate * d
    return x, v, z, lr_max, weight_sum
