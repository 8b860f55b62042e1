"""Modifiers of the weights: averages of the weights that the base visits."""

from gradprix.rules._rule import State
from gradprix.rules._schedule_free import STATE, TINY
from gradprix.rules.ops import maximum, minimum, where

from ._base_calls import direction, step
from ._modifier import modifier


def ema_point(h, t, x, average):
    """Return the moving average of the weights."""
    return average


@modifier(
    "Polyak & Juditsky 1992, doi:10.1137/0330046; weights as in torch.optim.swa_utils.get_ema_multi_avg_fn, "
    "warm-up of the decay as in tf.train.ExponentialMovingAverage with num_updates",
    relation="Equal to {base}, but evaluated at a moving average of its weights.",
    prefix="ema",
    state={"average": State("ema")},
    evaluate=ema_point,
    ema_decay=0.999,
    ema_warmup=True,
    domains={"ema_decay": (0.0, 1.0)},
)
def ema(h, t, x, g, average):
    """Evaluates the model at an exponential moving average of the weights."""
    x = step(x, g)
    # Without the warm-up, the average of a run that is shorter than 1 / (1 − decay) is mostly its first weights.
    decay = minimum(h.ema_decay, (1 + t) / (10 + t)) if h.ema_warmup else h.ema_decay
    average = where(t > 1, decay * average + (1 - decay) * x, x)
    return x, average


@modifier(
    "Zhang et al. 2019, arXiv:1907.08610, Algorithm 1",
    relation="Equal to {base} during the first k − 1 steps.",
    prefix="lookahead",
    state={"slow": State("lookahead_slow", init="x"), "since": State("lookahead_since", kind="scalar")},
    lookahead_steps=5.0,
    lookahead_alpha=0.5,
    domains={"lookahead_steps": (1.0, float("inf")), "lookahead_alpha": (0.0, 1.0)},
)
def lookahead(h, t, x, g, slow, since):
    """Moves slow weights by a fraction towards the weights every few steps, and continues from there."""
    x = step(x, g)
    since = since + 1
    synchronizes = where(since >= h.lookahead_steps, 1, 0)
    slow = where(synchronizes, slow + h.lookahead_alpha * (x - slow), slow)
    x = where(synchronizes, slow, x)
    since = (1 - synchronizes) * since
    return x, slow, since


def schedule_free_point(h, t, x, z):
    """Return the average of the iterates, given the training point x = (1 − β) z + β average."""
    average = z + (x - z) / h.interpolation
    return average


@modifier(
    "Defazio et al. 2024, arXiv:2405.15682, eqs. 5-7; warm-up and weights of the average as in its authors' code",
    relation="Equal to {base}, but evaluated at the average of its iterates, with gradients from near this average.",
    disabled=("beta1", "momentum"),
    domains={"interpolation": TINY},
    evaluate=schedule_free_point,
    state=STATE,
    interpolation=0.9,
    warmup_steps=0.0,
    r=0.0,
    weight_lr_power=2.0,
)
def schedule_free(h, t, x, g, z, lr_max, weight_sum):
    """Averages the iterates instead of using a learning-rate schedule."""
    rate = h.lr * minimum(t / h.warmup_steps, 1) if h.warmup_steps else h.lr
    lr_max = maximum(lr_max, rate)
    weight = t**h.r * lr_max**h.weight_lr_power
    weight_sum = weight_sum + weight
    c = weight / maximum(weight_sum, 1e-300)  # a learning rate of zero has no weight
    u = direction(z, g)
    d = u + h.weight_decay * x
    x = x + c * (z - x) - rate * (1 - h.interpolation * (1 - c)) * d
    z = z - rate * d
    return x, z, lr_max, weight_sum
