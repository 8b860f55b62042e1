"""AdaDelta: its decay, the persistence of its effective learning rate, and its first steps."""

import math

import torch
from torch import Tensor

from gradprix.explain.tracing import step
from gradprix.rules import Rule, adadelta, adagrad, adam, adamw
from gradprix.tasks.rng import stream

from ._claim import Claim, Finding, Measured, Verdict, exact, mean
from ._problems import end, quadratics, tuned, walk

IDLE, WEIGHTS = 1_000, 100
SAME = 1e-12  # relative tolerance: rounding

LATE, KEEPS = (
    (1_000, 10_000),
    0.9,
)  # steps on a constant gradient; smallest ratio of effective rates that counts as lasting

N, QUICK, D, CONDITION, STEPS = 24, 8, 10, 30.0, 300
TINY = 0.1  # ratio to a later step, or to Adam's first


def remaining_share(rule: Rule) -> float:
    """Return the remaining share of weights after many steps without a gradient, for the weight that changed most."""
    x = torch.randn(WEIGHTS, generator=stream(0, "weights"), dtype=torch.float64)
    shares = end(walk(rule, torch.zeros_like, x, IDLE)) / x
    return float(shares[(shares - 1).abs().argmax()])


def decay_factor(rule: Rule, name: str) -> float:
    """Return the factor by which a state variable decays in a step without a gradient."""
    state: dict[str, Tensor] = {}
    x, values = torch.zeros(1, dtype=torch.float64), rule.values()
    step(rule, values, 1, x, torch.ones_like(x), state)
    before = float(state[name])
    step(rule, values, 2, x, torch.zeros_like(x), state)
    return float(state[name]) / before


def decays(quick: bool) -> Finding:
    """Run steps without a gradient; deterministic, so that a quick run is the same."""
    del quick
    return judged_decays(
        exact(
            "share of a weight left after 1,000 steps at zero gradient, AdaDelta", remaining_share(adadelta), WEIGHTS
        ),
        exact("the same, AdamW at its default weight decay and rate", remaining_share(adamw), WEIGHTS),
        exact(
            "factor by which AdaDelta's mean of squared gradients falls at zero gradient", decay_factor(adadelta, "v")
        ),
    )


def judged_decays(ours: Measured, theirs: Measured, average: Measured) -> Finding:
    """Return the verdict from the remaining share of the weights."""
    says = (
        f"After {IDLE:,} steps at zero gradient AdaDelta leaves {ours.text('.4f')} of each weight, AdamW "
        f"{theirs.text('.4f')}. What decays in AdaDelta is its memory of squared gradients, by a factor of "
        f"{average.text('.2f')} a step."
    )
    return Finding("does not hold" if abs(ours.effect - 1) <= SAME else "holds", says, (ours, theirs, average))


def lasting(rule: Rule) -> float:
    """Return the effective learning rate on a constant gradient, late over early; there it equals |update|."""
    x = torch.zeros(1, dtype=torch.float64)
    points = torch.stack(list(walk(rule, torch.ones_like, x, LATE[1])))[:, 0]
    rates = (points[1:] - points[:-1]).abs()
    return float(rates[LATE[1] - 1] / rates[LATE[0] - 1])


def keeps(quick: bool) -> Finding:
    """Run steps on a constant gradient; deterministic, so that a quick run is the same."""
    del quick
    return judged_keeps(
        exact("AdaDelta's rate at step 10,000 over that at step 1,000, constant gradient", lasting(adadelta)),
        exact("the same, AdaGrad", lasting(adagrad)),
        exact("the same, Adam", lasting(adam)),
    )


def judged_keeps(ours: Measured, before: Measured, later: Measured) -> Finding:
    """Return the verdict from the ratio of rates."""
    says = (
        f"From step {LATE[0]:,} to step {LATE[1]:,} on a constant gradient AdaDelta's rate changes by a factor of "
        f"{ours.text()}, AdaGrad's by {before.text()}, Adam's by {later.text()}."
    )
    return Finding("holds" if ours.effect >= KEEPS else "does not hold", says, (ours, before, later))


def first_steps(quick: bool) -> Finding:
    """Compare the first step with later ones and with Adam's."""
    problems = quadratics(QUICK if quick else N, D, CONDITION, seed=8)
    shares = []
    for rule, lr in (
        (adadelta, tuned(adadelta, problems, STEPS)),
        (adam, tuned(adam, problems, STEPS)),
        (adadelta, 1.0),
    ):
        points = torch.stack(list(walk(rule, problems.gradient, problems.start, STEPS, lr=lr)))
        lengths = (points[1:] - points[:-1]).norm(dim=-1)
        shares.append((lengths[0] / lengths.max(0).values).tolist())
    one = torch.ones(1, dtype=torch.float64)
    default = [abs(float(end(walk(rule, torch.ones_like, 0 * one, 1)))) for rule in (adadelta, adam)]
    values = adadelta.values()
    return judged_first(
        mean("AdaDelta's first step over its longest, tuned, random quadratics", shares[0]),
        exact("AdaDelta's first step over Adam's, both at their defaults", default[0] / default[1]),
        mean("Adam's first step over its longest, tuned, random quadratics", shares[1]),
        mean("AdaDelta's first step over its longest at its default rate", shares[2]),
        exact("AdaDelta's first step at its defaults, in one coordinate", default[0]),
        exact("√(ε / (1 − ρ)) at its defaults", math.sqrt(float(values["eps"]) / (1 - float(values["rho"])))),
    )


def judged_first(own: Measured, others: Measured, adams: Measured, *each: Measured) -> Finding:
    """Return the verdict from the two ratios."""
    untuned, size, formula = each
    says = (
        f"AdaDelta's first step is {own.text('.3f')} of its longest at tuned rates and {untuned.text('.3f')} at its "
        f"default rate, Adam's {adams.text('.3f')}. At the defaults it is {size.text('.5f')} for any gradient that "
        f"is not small, √(ε / (1 − ρ)) = {formula.text('.5f')}: {others.text('.1f')} times Adam's first."
    )
    small, smaller = own.ci95[1] < TINY, others.effect < TINY
    verdict: Verdict = "holds" if small and smaller else "not settled"
    condition = ""
    if own.ci95[0] >= TINY and not smaller:
        verdict = "does not hold"
    elif small != smaller and (small or own.ci95[0] >= TINY):
        verdict = "holds only if"
        condition = "measured by its own later steps" if small else "measured by Adam's at the defaults"
    return Finding(verdict, says, (own, others, adams, *each), condition)


CLAIMS = (
    Claim(
        "adadelta-decays-weights",
        "AdaDelta introduces weight decay, so that its rate does not vanish.",
        "Weights shrink where there is no gradient, as they do under AdamW.",
        f"{WEIGHTS} random weights, {IDLE:,} steps at zero gradient, default hyperparameters: does not hold when none "
        f"changes by more than {SAME:g} of itself; else holds.",
        decays,
        "landscapes",
        "Zeiler 2012, arXiv:1212.5701, section 3.1: the sum over a window, as a decaying average",
    ),
    Claim(
        "adadelta-keeps-going",
        "AdaDelta averages past squared gradients instead of adding them up, so its rate does not fall to nothing.",
        f"On a constant gradient the effective rate at step {LATE[1]:,} is not below that at step {LATE[0]:,}.",
        f"Holds when it keeps {KEEPS:g} of it or more; else does not hold. AdaGrad, whose rate is η/√t, keeps 0.32.",
        keeps,
        "landscapes",
        "Zeiler 2012, arXiv:1212.5701, Algorithm 1",
    ),
    Claim(
        "adadelta-first-steps-are-tiny",
        "AdaDelta begins with tiny steps, since its memory of updates begins at zero.",
        "The first step is small for its own later ones, and small for Adam's first at both rules' defaults.",
        f"On {N} random quadratics ({D} directions, condition number {CONDITION:g}, {STEPS} steps, tuned rates) the "
        "mean ratio of the first step to the longest; and exactly, the ratio to Adam's first. Holds when both are "
        f"below {TINY:g}, 95 % interval and all, does not hold when neither is, holds only if when one is; else not "
        "settled.",
        first_steps,
        "landscapes",
        "Zeiler 2012, arXiv:1212.5701, section 4.3, on ε",
    ),
)
