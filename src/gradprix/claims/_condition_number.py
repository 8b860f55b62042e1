"""Momentum and the condition number: scaling of the number of iterations."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gradprix.rules import sgd
from gradprix.tasks.rng import stream

from ._claim import Claim, Finding, Measured, Verdict, mean
from ._problems import walk

N, QUICK = 16, 6
D = 10
CONDITIONS = (10.0, 30.0, 100.0, 300.0, 1e3, 1e4)
NEAR = 1e-6  # relative to the initial distance
MOST = 200_000
EXPONENT, ROOT, EFFECT = 1.0, 0.5, 0.1

# Tuning grids, learning rates in units of 1 / λ: fine enough to find the optimum to within a few per cent.
RATES = tuple(float(x) for x in np.arange(0.25, 2.0, 0.1))
HEAVY_RATES = tuple(float(x) for x in np.arange(0.5, 4.0, 0.25))
MOMENTA = tuple(float(x) for x in 1 - np.geomspace(0.02, 0.9, 22))


def iterations(condition: float, n: int, rates: Tensor, momenta: Sequence[float]) -> Tensor:
    """Return the steps each start needs at the setting that first brings all of them near the minimum, `[n]`.

    The quadratic is axis-aligned, because descent with or without momentum is rotation-invariant.
    """
    curvature = torch.logspace(0, np.log10(condition), D, dtype=torch.float64)
    x = torch.randn(n, D, generator=stream(0, "starts of ravines"), dtype=torch.float64)
    goal, best, most = NEAR * x.norm(dim=-1), torch.full((n,), float("inf"), dtype=torch.float64), MOST
    for momentum in momenta:
        needed = torch.full((len(rates), n), float("inf"), dtype=torch.float64)
        begin, lr = x.expand(len(rates), n, D), (rates / condition)[:, None, None]
        for t, point in enumerate(walk(sgd, lambda x: curvature * x, begin, most - 1, lr=lr, momentum=momentum)):
            is_reached = (point.norm(dim=-1) <= goal) & needed.isinf()
            if is_reached.any():
                needed[is_reached] = t
                done = needed.isfinite().all(-1)
                if done.any():
                    best, most = needed[done.double().argmax()], t
                    break
    return best


def exponents(conditions: Sequence[float], n: int, rates: Sequence[float], momenta: Sequence[float]) -> list[float]:
    """Return the exponent of the condition number in the iterations of each start."""
    tried = torch.tensor(rates, dtype=torch.float64)
    counts = torch.stack([iterations(condition, n, tried, momenta) for condition in conditions])
    fitted: list[float] = np.polyfit(np.log(conditions), counts.log().numpy(), 1)[0].tolist()
    return fitted


def root_kappa(quick: bool) -> Finding:
    """Fit both exponents, each at its best settings for each condition number."""
    conditions, n = (CONDITIONS[:4], QUICK) if quick else (CONDITIONS, N)
    plain = mean("exponent of κ in the iterations of gradient descent", exponents(conditions, n, RATES, (0.0,)))
    heavy = mean("exponent of κ in the iterations with momentum", exponents(conditions, n, HEAVY_RATES, MOMENTA))
    return judged(heavy, plain)


def judged(heavy: Measured, plain: Measured) -> Finding:
    """Return the verdict from the two exponents."""

    def is_close(exponent_measured: Measured, exponent: float) -> bool:
        return exponent - EFFECT <= exponent_measured.ci95[0] and exponent_measured.ci95[1] <= exponent + EFFECT

    verdict: Verdict = "not settled"
    if is_close(heavy, ROOT) and is_close(plain, EXPONENT):
        verdict = "holds"
    elif heavy.ci95[1] >= plain.ci95[0]:
        verdict = "does not hold"
    says = (
        f"The iterations of gradient descent grow as κ to the power {plain.text()}, with momentum as κ to the power "
        f"{heavy.text()}, each at its best settings."
    )
    return Finding(verdict, says, (heavy, plain))


CLAIMS = (
    Claim(
        "momentum-needs-root-kappa",
        "Momentum smooths the updates and speeds them up where they agree.",
        f"Iterations until the distance from the minimum is {NEAR:g} of what it was, at the best rate and momentum for "
        "each condition number κ from 10 to 10,000: they grow as √κ with momentum, as κ without.",
        f"From {N} random starts on quadratics with {D} curvatures: holds when the 95 % intervals of the exponents "
        f"are within {ROOT:g} ± {EFFECT:g} with momentum and {EXPONENT:g} ± {EFFECT:g} without; does not hold when "
        "momentum's is no smaller; else not settled.",
        root_kappa,
        "landscapes",
        "Polyak 1964, doi:10.1016/0041-5553(64)90137-5",
    ),
)
