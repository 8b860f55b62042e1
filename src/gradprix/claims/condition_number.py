"""Momentum and the condition number: growth of the number of iterations with the condition number."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gradprix.rules import sgd
from gradprix.tasks.rng import stream

from .claim import experiment
from .decisions import Decision, is_within
from .estimates import mean
from .quadratics import exponents, iterates
from .registry import Quantities

N, QUICK = 16, 6
D = 10
CONDITIONS = (10.0, 30.0, 100.0, 300.0, 1e3, 1e4)
CONVERGED = 1e-6  # relative to the initial distance
MAX_STEPS = 200_000
EXPONENT, ROOT, EFFECT = 1.0, 0.5, 0.1

# Grids for tuning, with learning rates in units of 1 / λ, where λ is the largest curvature. They are fine enough to
# find the smallest number of iterations to within a few per cent.
RATES = torch.from_numpy(np.arange(0.25, 2.0, 0.1))
HEAVY_RATES = torch.from_numpy(np.arange(0.5, 4.0, 0.25))
MOMENTA = tuple(float(x) for x in 1 - np.geomspace(0.02, 0.9, 22))


def iterations(condition: float, n: int, rates: Tensor, momenta: Sequence[float]) -> Tensor:
    """Return the number of steps to convergence from each of `n` starting points, `[n]`, with tuned hyperparameters.

    The hyperparameters are those with which all starting points have converged after the fewest steps. The quadratic is
    axis-aligned, because descent with or without momentum is invariant to rotation.

    Args:
        condition: condition number.
        n: number of starting points.
        rates: learning rates to tune over, in units of 1 / λ.
        momenta: momentum coefficients to tune over.
    """
    curvature = torch.logspace(0, np.log10(condition), D, dtype=torch.float64)
    x = torch.randn(n, D, generator=stream(0, "starts of ravines"), dtype=torch.float64)
    start, lr, tolerance = x.expand(len(rates), n, D), (rates / condition)[:, None, None], CONVERGED * x.norm(dim=-1)
    best, fewest = torch.full((n,), float("inf"), dtype=torch.float64), MAX_STEPS
    for momentum in momenta:
        needed = torch.full((len(rates), n), float("inf"), dtype=torch.float64)
        points = iterates(sgd, lambda x: curvature * x, start, fewest - 1, lr=lr, momentum=momentum)
        for t, point in enumerate(points):
            is_reached = (point.norm(dim=-1) <= tolerance) & needed.isinf()
            if is_reached.any():
                needed[is_reached] = t
                done = needed.isfinite().all(-1)
                if done.any():
                    best, fewest = needed[done.double().argmax()], t
                    break
    return best


def decide(m: Quantities) -> Decision:
    """Return the verdict from the exponents of the condition number with and without momentum."""
    heavy, plain = m["heavy"], m["plain"]
    if is_within(heavy, ROOT - EFFECT, ROOT + EFFECT) and is_within(plain, EXPONENT - EFFECT, EXPONENT + EFFECT):
        return "holds"
    return "does not hold" if heavy.ci95[1] >= plain.ci95[0] else "inconclusive"


@experiment("momentum-needs-root-kappa", decide=decide)
def measure(quick: bool) -> Quantities:
    """Fit the exponents of the condition number in the number of iterations, with and without momentum.

    Learning rate and momentum are tuned for each condition number.
    """
    conditions, n = (CONDITIONS[:4], QUICK) if quick else (CONDITIONS, N)

    def condition_exponents(rates: Tensor, momenta: Sequence[float]) -> list[float]:
        return exponents(conditions, torch.stack([iterations(x, n, rates, momenta) for x in conditions]))

    return {"heavy": mean(condition_exponents(HEAVY_RATES, MOMENTA)), "plain": mean(condition_exponents(RATES, (0.0,)))}
