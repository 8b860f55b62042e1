"""AdaDelta: its decay, the persistence of its effective learning rate, and its first steps."""

import math

import torch
from torch import Tensor

from gradprix.explain.tracing import step
from gradprix.rules import Rule, adadelta, adagrad, adam, adamw
from gradprix.tasks.rng import stream

from .claim import experiment
from .decisions import all_of, any_of, is_below
from .estimates import exact, mean
from .quadratics import final_point, quadratics, trajectory, tuned
from .registry import Quantities

IDLE, WEIGHTS = 1_000, 100
SAME = 1e-12  # relative tolerance: rounding
LATE, KEEPS = (1_000, 10_000), 0.9  # two steps at which rates are compared; smallest ratio that counts as persistent
N, QUICK, D, CONDITION, STEPS = 24, 8, 10, 30.0, 300
TINY = 0.1  # threshold of the ratio of the first step to a later one, or to Adam's first step


def remaining_share(rule: Rule) -> float:
    """Return the fraction of a weight that remains after many steps with zero gradient.

    Of several random weights, the one that changed most is used.
    """
    x = torch.randn(WEIGHTS, generator=stream(0, "weights"), dtype=torch.float64)
    shares = final_point(rule, torch.zeros_like, x, IDLE) / x
    return float(shares[(shares - 1).abs().argmax()])


def decay_factor(rule: Rule, name: str) -> float:
    """Return the factor by which the state variable `name` decays in a step with zero gradient."""
    state: dict[str, Tensor] = {}
    x, values = torch.zeros(1, dtype=torch.float64), rule.values()
    step(rule, values, 1, x, torch.ones_like(x), state)
    before = float(state[name])
    step(rule, values, 2, x, torch.zeros_like(x), state)
    return float(state[name]) / before


@experiment("adadelta-decays-weights", decide=lambda m: all_of(abs(m["adadelta"].effect - 1) > SAME))
def measure_decay(quick: bool) -> Quantities:
    """Measure the decay of weights in steps with zero gradient.

    The result is deterministic, so `quick` has no effect.
    """
    return {
        "adadelta": exact(remaining_share(adadelta), WEIGHTS),
        "adamw": exact(remaining_share(adamw), WEIGHTS),
        "average": exact(decay_factor(adadelta, "v")),
    }


def persistence(rule: Rule) -> float:
    """Return the ratio of the effective learning rate at a late step to that at an early step, on a constant gradient.

    The gradient is 1, so the effective learning rate is the absolute value of the update.
    """
    points = trajectory(rule, torch.ones_like, torch.zeros(1, dtype=torch.float64), LATE[1])[:, 0]
    rates = (points[1:] - points[:-1]).abs()
    return float(rates[LATE[1] - 1] / rates[LATE[0] - 1])


@experiment("adadelta-keeps-going", decide=lambda m: all_of(m["adadelta"].effect >= KEEPS))
def measure_persistence(quick: bool) -> Quantities:
    """Measure the persistence of the effective learning rate on a constant gradient.

    The result is deterministic, so `quick` has no effect.
    """
    return {
        "adadelta": exact(persistence(adadelta)),
        "adagrad": exact(persistence(adagrad)),
        "adam": exact(persistence(adam)),
    }


@experiment(
    "adadelta-first-steps-are-tiny",
    decide=lambda m: any_of(
        {
            "measured by its own later steps": is_below(m["own"], TINY),
            "measured by Adam's at the defaults": is_below(m["others"], TINY),
        }
    ),
)
def measure_first_step(quick: bool) -> Quantities:
    """Compare the length of AdaDelta's first step with its later steps and with Adam's first step."""
    problems = quadratics(QUICK if quick else N, D, CONDITION, seed=8)

    def relative_length(rule: Rule, lr: Tensor | float) -> Tensor:
        points = trajectory(rule, problems.gradient, problems.start, STEPS, lr=lr)
        lengths = (points[1:] - points[:-1]).norm(dim=-1)
        share: Tensor = lengths[0] / lengths.max(0).values
        return share

    zero, values = torch.zeros(1, dtype=torch.float64), adadelta.values()
    first, adams_first = (abs(float(final_point(rule, torch.ones_like, zero, 1))) for rule in (adadelta, adam))
    root = math.sqrt(float(values["eps"]) / (1 - float(values["rho"])))
    return {
        "own": mean(relative_length(adadelta, tuned(adadelta, problems, STEPS))),
        "others": exact(first / adams_first),
        "adam": mean(relative_length(adam, tuned(adam, problems, STEPS))),
        "untuned": mean(relative_length(adadelta, 1.0)),
        "size": exact(first),
        "root": exact(root),
    }
