"""Gradient descent on all examples: the stability edge, and convergence."""

from itertools import islice

import torch
from torch import Tensor

from gradprix.rules import sgd

from .claim import Quantities, experiment
from .decisions import Decision, is_within
from .estimates import exact, mean
from .quadratics import Quadratics, exponents, final_loss, iterates, quadratics, stationary_loss, trajectory

N, QUICK = 32, 8
D, CONDITION = 10, 30.0
STEPS = 1_500
EDGE, EFFECT = 2.0, 0.01  # predicted edge, and largest relative deviation of any problem
PARTS, ROUNDS = 16, 6  # subdivision of a bracket from 1 to 4, to less than a millionth

RATES = (0.5, 1.0, 1.5, 1.9)  # learning rates × largest curvature
STUCK = 1e-20  # relative loss at which float64 rounding ends the descent
# The stationary loss is measured from the minimum, and with a relaxation time below a thousand steps: from far away,
# the smallest learning rates would not converge in time.
NOISE, SLOW, NOISY_STEPS, ROUND = 0.1, (0.01, 0.02, 0.05, 0.1), 6_000, 10.0
SLOPE, SLOPE_EFFECT = 1.0, 0.1


def stability_edges(problems: Quadratics, momentum: float = 0.0, rounds: int = ROUNDS) -> Tensor:
    """Return lr × the largest curvature above which a descent diverges, for each problem, by bracketing."""
    largest = problems.largest_curvature()
    low, width = torch.ones_like(largest), 3.0
    for _ in range(rounds):
        width /= PARTS
        candidates = low + width * torch.arange(1, PARTS, dtype=torch.float64)[:, None]
        x, lr = problems.start.expand(len(candidates), *problems.start.shape), (candidates / largest)[..., None]
        points = iterates(sgd, problems.gradient, x, STEPS, lr=lr, momentum=momentum)
        # Two late windows, where only the steepest direction can grow: a descent with momentum oscillates.
        losses = torch.stack([problems.loss(x) for x in islice(points, STEPS - 400, None)])
        late = losses[200:].amax(0)
        shrinks = late.isfinite() & (late <= losses[:200].amax(0))
        low = low + width * shrinks.double().cumprod(0).sum(0)
    return low + width / 2


def crossing_share(problems: Quadratics, rate: float) -> Tensor:
    """Return the share of ten steps at lr = `rate` / λ that cross the minimum of the steepest direction.

    Ten, because at 0.9 / λ each step is a tenth of the one before: from the sixteenth on only rounding remains.
    """
    direction = torch.linalg.eigh(problems.curvature)[1][..., -1]
    lr = (rate / problems.largest_curvature())[:, None]
    along = (trajectory(sgd, problems.gradient, problems.start, 10, lr=lr) * direction).sum(-1)
    share: Tensor = (along[1:] * along[:-1] < 0).double().mean(0)
    return share


def decide_edge(m: Quantities) -> Decision:
    """Return the verdict from the measured edges."""
    if m["worst"].effect > EFFECT * EDGE:
        return "not settled"
    if m["below"].effect < 0.5 < m["above"].effect:
        return "holds only if", "the learning rate is above 1/λ; past 2/λ it diverges"
    return "does not hold"


@experiment("large-updates-overshoot", decide=decide_edge)
def measure_edge(quick: bool) -> Quantities:
    """Bracket the stability edge on random quadratics."""
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
    """Return the verdict from the largest remaining share of the loss, and from the slope of the stationary loss."""
    if m["worst"].effect > STUCK:
        return "holds"
    is_proportional = is_within(m["slope"], SLOPE - SLOPE_EFFECT, SLOPE + SLOPE_EFFECT)
    return "does not hold" if is_proportional else "not settled"


@experiment("gd-gets-stuck", decide=decide_convergence)
def measure_convergence(quick: bool) -> Quantities:
    """Run descents with and without noise."""
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
