"""Gradient descent on quadratics: the learning rate above which it diverges, and its convergence below."""

from itertools import islice

import torch
from torch import Tensor

from gradprix.rules import sgd

from .claim import experiment
from .decisions import Decision, is_within
from .estimates import exact, mean
from .quadratics import Quadratics, exponents, final_loss, iterates, quadratics, stationary_loss, trajectory
from .registry import Quantities

N, QUICK = 32, 8
D, CONDITION = 10, 30.0
STEPS = 1_500
EDGE, EFFECT = 2.0, 0.01  # predicted edge, and largest tolerated relative deviation of any problem from it
PARTS, ROUNDS = 16, 6  # parts into which an interval from 1 to 4 is divided, and rounds, to less than a millionth

RATES = (0.5, 1.0, 1.5, 1.9)  # learning rates × largest curvature
STUCK = 1e-20  # relative loss at which float64 rounding ends the descent
# To measure the stationary loss, descents start at the minimum, and learning rates are large enough for a relaxation
# time below a thousand steps. From far away, the smallest learning rates would not converge in time.
NOISE, SLOW, NOISY_STEPS, ROUND = 0.1, (0.01, 0.02, 0.05, 0.1), 6_000, 10.0
SLOPE, SLOPE_EFFECT = 1.0, 0.1


def stability_edges(problems: Quadratics, momentum: float = 0.0, rounds: int = ROUNDS) -> Tensor:
    """Return the value of lr × largest curvature above which a descent diverges, for each problem, `[n]`.

    It is found by repeated subdivision of an interval that contains it.

    Args:
        problems: the quadratics.
        momentum: momentum coefficient.
        rounds: number of subdivisions.
    """
    largest = problems.largest_curvature()
    low, width = torch.ones_like(largest), 3.0
    for _ in range(rounds):
        width /= PARTS
        candidates = low + width * torch.arange(1, PARTS, dtype=torch.float64)[:, None]
        x, lr = problems.start.expand(len(candidates), *problems.start.shape), (candidates / largest)[..., None]
        points = iterates(sgd, problems.gradient, x, STEPS, lr=lr, momentum=momentum)
        # Compare the maxima over two late windows, in which only the steepest direction may still grow. Single steps
        # cannot be compared, because a descent with momentum oscillates.
        losses = torch.stack([problems.loss(x) for x in islice(points, STEPS - 400, None)])
        late = losses[200:].amax(0)
        shrinks = late.isfinite() & (late <= losses[:200].amax(0))
        low = low + width * shrinks.double().cumprod(0).sum(0)
    return low + width / 2


def crossing_share(problems: Quadratics, rate: float) -> Tensor:
    """Return the fraction of ten steps that cross the minimum of the steepest direction, for each problem, `[n]`.

    There are only ten steps because at 0.9 / λ each step has a tenth of the length of the step before, so that from the
    sixteenth step on only rounding errors remain.

    Args:
        problems: the quadratics.
        rate: learning rate in units of 1 / λ, where λ is the largest curvature.
    """
    direction = torch.linalg.eigh(problems.curvature)[1][..., -1]
    lr = (rate / problems.largest_curvature())[:, None]
    along = (trajectory(sgd, problems.gradient, problems.start, 10, lr=lr) * direction).sum(-1)
    share: Tensor = (along[1:] * along[:-1] < 0).double().mean(0)
    return share


def decide_edge(m: Quantities) -> Decision:
    """Return the verdict from the measured edges and the fractions of steps that cross the minimum."""
    if m["worst"].effect > EFFECT * EDGE:
        return "inconclusive"
    if m["below"].effect < 0.5 < m["above"].effect:
        return "holds only if", "the learning rate is above 1/λ; past 2/λ it diverges"
    return "does not hold"


@experiment("large-updates-overshoot", decide=decide_edge)
def measure_edge(quick: bool) -> Quantities:
    """Measure the stability edge and the fraction of steps that cross the minimum on random quadratics."""
    problems = quadratics(QUICK if quick else N, D, CONDITION, seed=1)
    rounds = ROUNDS // 2 if quick else ROUNDS
    edges = stability_edges(problems, 0.0, rounds)
    deviation = float((edges - EDGE).abs().max())
    return {
        "edge": mean(edges),
        "worst": exact(deviation, len(edges)),
        "below": mean(crossing_share(problems, 0.9)),
        "above": mean(crossing_share(problems, 1.9)),
        "momentum": mean(stability_edges(problems, 0.9, rounds)),
    }


def decide_convergence(m: Quantities) -> Decision:
    """Return the verdict from the final loss without noise, and from the stationary loss with noise.

    The criteria are the largest final loss relative to the initial loss, and the exponent of the learning rate in the
    stationary loss.
    """
    if m["worst"].effect > STUCK:
        return "holds"
    is_proportional = is_within(m["slope"], SLOPE - SLOPE_EFFECT, SLOPE + SLOPE_EFFECT)
    return "does not hold" if is_proportional else "inconclusive"


@experiment("gd-gets-stuck", decide=decide_convergence)
def measure_convergence(quick: bool) -> Quantities:
    """Measure the final loss of gradient descent without noise, and its stationary loss with noise."""
    problems = quadratics(QUICK if quick else N, D, CONDITION, seed=2)
    initial, remaining = problems.loss(problems.start), []
    for rate in RATES:
        lr = (rate / problems.largest_curvature())[:, None]
        points = iterates(sgd, problems.gradient, problems.start, STEPS, lr=lr)
        remaining.append(final_loss(problems, points, STEPS) / initial)
    noisy = quadratics(QUICK if quick else N, D, ROUND, seed=3, noise=NOISE)
    rates = torch.tensor(SLOW, dtype=torch.float64)[:, None] / noisy.largest_curvature()
    steps, minimum = NOISY_STEPS if quick else 3 * NOISY_STEPS, torch.zeros_like(noisy.start).expand(len(SLOW), -1, -1)
    loss = stationary_loss(noisy, minimum, steps, steps // 3, seed=3, lr=rates[..., None])
    return {
        "worst": exact(float(torch.stack(remaining).max()), len(problems.start)),
        "slope": mean(exponents(SLOW, loss)),
    }
