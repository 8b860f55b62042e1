"""Gradient descent on all examples: the stability edge, and convergence."""

from itertools import islice

import numpy as np
import torch
from torch import Tensor

from gradprix.rules import sgd

from ._claim import Claim, Finding, Measured, Verdict, exact, mean
from ._problems import Quadratics, final_loss, quadratics, walk

N, QUICK = 32, 8
D, CONDITION = 10, 30.0
STEPS = 1_500
EDGE, EFFECT = 2.0, 0.01  # predicted edge, and largest relative deviation of any problem
PARTS, ROUNDS = 16, 6  # subdivision of a bracket from 1 to 4, to less than a millionth

RATES = (0.5, 1.0, 1.5, 1.9)  # learning rates × largest curvature
STUCK = 1e-20  # relative loss at which float64 rounding ends the descent
# The stationary loss is measured from the minimum, and with a relaxation time below a thousand steps: from far away,
# the smallest learning rates would not converge in time.
NOISE, SLOW, HOVER, ROUND = 0.1, (0.01, 0.02, 0.05, 0.1), 6_000, 10.0
SLOPE, SLOPE_EFFECT = 1.0, 0.1


def edges(problems: Quadratics, momentum: float = 0.0, rounds: int = ROUNDS) -> Tensor:
    """Return lr × the largest curvature above which a descent diverges, for each problem, by bracketing."""
    steepest = problems.steepest()
    low, width = torch.ones_like(steepest), 3.0
    for _ in range(rounds):
        width /= PARTS
        tried = low + width * torch.arange(1, PARTS, dtype=torch.float64)[:, None]
        x = problems.start.expand(len(tried), *problems.start.shape)
        points = walk(sgd, problems.gradient, x, STEPS, lr=(tried / steepest)[..., None], momentum=momentum)
        # Two late windows, where only the steepest direction can grow: a descent with momentum oscillates.
        sizes = torch.stack([problems.loss(x) for x in islice(points, STEPS - 400, None)])
        late = sizes[200:].amax(0)
        shrinks = late.isfinite() & (late <= sizes[:200].amax(0))
        low = low + width * shrinks.double().cumprod(0).sum(0)
    return low + width / 2


def jumps(problems: Quadratics, share: float) -> Tensor:
    """Return the share of ten steps at `share` / λ that jump over the minimum of the steepest direction.

    Ten, because at 0.9 / λ each step is a tenth of the one before: from the sixteenth on only rounding remains.
    """
    direction = torch.linalg.eigh(problems.curvature)[1][..., -1]
    lr = (share / problems.steepest())[:, None]
    along = torch.stack([(x * direction).sum(-1) for x in walk(sgd, problems.gradient, problems.start, 10, lr=lr)])
    return (along[1:] * along[:-1] < 0).double().mean(0)


def overshoots(quick: bool) -> Finding:
    """Bracket the stability edge on random quadratics."""
    problems = quadratics(QUICK if quick else N, D, CONDITION, seed=1)
    rounds = ROUNDS // 2 if quick else ROUNDS
    edge_values = edges(problems, 0.0, rounds)
    edge = mean("rate × largest curvature at which gradient descent begins to diverge", edge_values.tolist())
    worst = exact(
        "largest distance of a problem's edge from 2", float((edge_values - EDGE).abs().max()), len(edge_values)
    )
    heavy = mean("the same with momentum 0.9, where theory has 2 (1 + 0.9)", edges(problems, 0.9, rounds).tolist())
    below = mean("share of steps that jump over the minimum at 0.9 / λ", jumps(problems, 0.9).tolist())
    above = mean("share of steps that jump over the minimum at 1.9 / λ", jumps(problems, 1.9).tolist())
    return judged_overshoot(edge, worst, below, above, heavy)


def judged_overshoot(edge: Measured, worst: Measured, below: Measured, above: Measured, heavy: Measured) -> Finding:
    """Return the verdict from the measured edges."""
    says = (
        f"Gradient descent diverges from a rate of {edge.text('.4f')} over the largest curvature on; no problem is "
        f"further from 2 than {worst.text('.1g')}. At 0.9 / λ {below.text('.0%')} of steps jump over the minimum of "
        f"the steepest direction, at 1.9 / λ, where it converges too, {above.text('.0%')}. With momentum 0.9 "
        f"the edge is at {heavy.text('.4f')}."
    )
    sharp = worst.effect <= EFFECT * EDGE
    if sharp and below.effect < 0.5 < above.effect:
        return Finding(
            "holds only if", says, (edge, worst, below, above, heavy), "the rate is above 1/λ; past 2/λ it diverges"
        )
    return Finding("does not hold" if sharp else "not settled", says, (edge, worst, below, above, heavy))


def stuck(quick: bool) -> Finding:
    """Run descents with and without noise."""
    problems = quadratics(QUICK if quick else N, D, CONDITION, seed=2)
    x = problems.start
    first, remaining = problems.loss(x), []
    for share in RATES:
        lr = (share / problems.steepest())[:, None]
        remaining.append(final_loss(problems, walk(sgd, problems.gradient, x, STEPS, lr=lr), STEPS) / first)
    worst = exact(
        "largest share of the loss that gradient descent leaves below 2 / λ",
        float(torch.stack(remaining).max()),
        len(x),
    )
    problems = quadratics(QUICK if quick else N, D, ROUND, seed=3, noise=NOISE)
    rates = torch.tensor(SLOW, dtype=torch.float64)[:, None] / problems.steepest()
    steps, minimum = HOVER if quick else 3 * HOVER, torch.zeros(len(SLOW), *problems.start.shape, dtype=torch.float64)
    floor = torch.zeros_like(rates)
    for t, point in enumerate(walk(sgd, problems.noisy(3), minimum, steps, lr=rates[..., None])):
        floor += problems.loss(point) * (t > steps // 3)
    slopes = np.polyfit(np.log(SLOW), floor.log().numpy(), 1)[0]
    slope = mean("exponent of the rate in the loss at which descent with noise hovers", slopes.tolist())
    return judged_stuck(worst, slope)


def judged_stuck(worst: Measured, slope: Measured) -> Finding:
    """Return the verdict from the remaining loss and the exponent."""
    converges = worst.effect <= STUCK
    proportional = slope.ci95[0] >= SLOPE - SLOPE_EFFECT and slope.ci95[1] <= SLOPE + SLOPE_EFFECT
    says = (
        f"Below 2/λ gradient descent leaves at most {worst.text('.0e')} of the loss, on every problem. What hovers "
        "is descent with noisy gradients at a constant rate, at a loss that grows as the rate to the power "
        f"{slope.text()}."
    )
    verdict: Verdict = "does not hold" if converges and proportional else "not settled" if converges else "holds"
    return Finding(verdict, says, (worst, slope))


CLAIMS = (
    Claim(
        "large-updates-overshoot",
        "Gradient descent on the whole data set makes large updates, which overshoot the minimum.",
        f"An edge in the rate, on random quadratics with {D} directions and a condition number of {CONDITION:g}: below "
        "2/λ, λ the largest curvature, every descent converges; above it every one grows.",
        f"The edge is bracketed on each of {N} problems. Holds only if the rate is above 1/λ, when every "
        f"edge is within {EFFECT:.0%} of 2/λ, less than half of the steps jump over the minimum at 0.9/λ and more than "
        "half do at 1.9/λ; does not hold when the edges are there and the jumps are not; else not settled.",
        overshoots,
        "landscapes",
        "Cohen et al. 2021, arXiv:2103.00065, section 2",
    ),
    Claim(
        "gd-gets-stuck",
        "Gradient descent on the whole data set gets stuck near the optimum.",
        "A loss that stays well above zero after many steps, at rates below the edge of stability 2/λ.",
        f"On {N} random quadratics of condition number {CONDITION:g}, {STEPS:,} steps at 0.5, 1, 1.5 and 1.9 over λ. "
        f"Does not hold when at most {STUCK:g} of the loss is left everywhere (a worse condition takes more steps), "
        "and it is with noise added to the gradients that a constant rate hovers: the exponent of the rate in the "
        f"hovering loss has its 95 % interval within {SLOPE:g} ± {SLOPE_EFFECT:g}. Holds when more is left "
        "without noise; else not settled.",
        stuck,
        "landscapes",
        "Bottou, Curtis & Nocedal 2018, arXiv:1606.04838, theorem 4.6",
    ),
)
