"""Batch size on a noisy quadratic, with exact expected losses.

The model is that of Zhang et al. 2019, arXiv:1907.04164: curvatures h_i = 1/i, gradient noise of variance h_i / B in
direction i at batch size B, and a standard normal starting point. Mean and covariance of the weights and the momentum
follow a linear recursion, so that no run has to be drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from gradprix.claims.decisions import Decision, all_of, is_above, is_within
from gradprix.claims.estimates import exact
from gradprix.claims.registry import Quantities

from .batch_curves import fit_critical_batch, interpolate_optimum

D, QUICK_D = 1_000, 200
TARGET = 0.01  # loss to be reached, of an initial loss of half the sum of the curvatures
SIZES = tuple(4**k for k in range(9))  # batch sizes from 1 to 65,536
LARGEST = 2**20  # maximum number of steps
RATES = 2.0 ** torch.arange(-14, 2.01, 0.5, dtype=torch.float64)  # learning rates over that of the stability edge, / 2
HELPS, LITTLE = 2.0, 1.25  # factor in steps by which momentum helps, and up to which it helps little
RAISES = 1.5  # factor that counts as a larger critical batch size
AGREES = 3.0  # factor within which the noise scale predicts the critical batch size


@dataclass(frozen=True)
class Method:
    """An optimizer on a quadratic.

    Args:
        momentum: coefficient β of heavy ball; 0 for gradient descent.
        power: exponent p of a preconditioner that divides the gradient by the curvature to this power.
    """

    momentum: float = 0.0
    power: float = 0.0


METHODS: Mapping[str, Method] = {"sgd": Method(), "momentum": Method(0.9), "preconditioned": Method(0.0, 0.5)}


def curvatures(quick: bool) -> Tensor:
    """Return the curvatures, `[d]`."""
    return 1 / torch.arange(1, (QUICK_D if quick else D) + 1, dtype=torch.float64)


def transition(method: Method, h: Tensor, lr: Tensor, size: float) -> Tensor:
    """Return the matrix by which a step changes (E[x²], E[xv], E[v²], 1) in every direction, `[rates, d, 4, 4]`.

    With gradient g and preconditioned curvature k, a step is v ← β v − lr g, x ← x + v.

    Args:
        method: the optimizer.
        h: curvatures, `[d]`.
        lr: learning rates, `[rates]`.
        size: batch size.
    """
    lr, beta = lr[:, None], method.momentum
    k, noise = h ** (1 - method.power), lr**2 * h ** (1 - 2 * method.power) / size
    a = lr * k
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    # New v = β v − a x + noise, new x = (1 − a) x + β v + noise.
    rows = [
        [(1 - a) ** 2, 2 * (1 - a) * beta, beta**2 * one, noise],
        [-a * (1 - a), (1 - 2 * a) * beta, beta**2 * one, noise],
        [a**2, -2 * a * beta, beta**2 * one, noise],
        [zero, zero, zero, one],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def expected_steps(method: Method, h: Tensor, lr: Tensor, size: float) -> Tensor:
    """Return the number of steps after which the expected loss is at most `TARGET`, `[rates]`.

    It is infinite if the loss is still larger after `LARGEST` steps. Powers of the transition are squared
    repeatedly, and a binary search finds the step.
    """
    powers = [transition(method, h, lr, size)]
    while 2 ** len(powers) < LARGEST:
        powers.append(powers[-1] @ powers[-1])
    state = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64).expand(len(lr), len(h), 4)
    steps = torch.zeros(len(lr), dtype=torch.float64)
    for k in reversed(range(len(powers))):
        later = (powers[k] @ state[..., None])[..., 0]
        loss = 0.5 * (later[..., 0] * h).sum(-1)
        is_before = ~(loss <= TARGET)  # true for NaN, after an overflow
        state = later.where(is_before[:, None, None], state)
        steps += is_before * 2.0**k
    return (steps + 1).where(steps < 2 ** len(powers) - 1, torch.inf)


def tuned_steps(method: Method, h: Tensor, size: float) -> tuple[float, float]:
    """Return the number of steps to the target at the best learning rate, and that rate."""
    edge = (1 + method.momentum) / h.max() ** (1 - method.power)  # half of the learning rate of the stability edge
    rates = RATES * edge
    log_rate, log_steps = interpolate_optimum(rates.log().numpy(), expected_steps(method, h, rates, size).log().numpy())
    return float(np.exp(log_steps)), float(np.exp(log_rate))


@cache
def measure_steps(quick: bool) -> dict[str, list[tuple[float, float]]]:
    """Return the steps to the target and the best learning rate at each of `SIZES`, by method."""
    h = curvatures(quick)
    return {name: [tuned_steps(method, h, size) for size in SIZES] for name, method in METHODS.items()}


def noise_scale(quick: bool, weighted: bool) -> float:
    """Return the mean of the noise scale over the steps of a run with the largest batches, to the target.

    Args:
        quick: use fewer directions.
        weighted: return tr(HΣ) / GᵀHG instead of the simple noise scale tr Σ / |G|².
    """
    h = curvatures(quick)
    lr = tuned_steps(METHODS["sgd"], h, float("inf"))[1]
    weight = h if weighted else torch.ones_like(h)
    second, scales = torch.ones_like(h), []
    while float(0.5 * (second * h).sum()) > TARGET:
        scales.append(float((weight * h).sum() / (weight * h**2 * second).sum()))
        second = second * (1 - lr * h) ** 2
    return float(np.mean(scales))


def measure_noise_scale(quick: bool) -> Quantities:
    """Compare the critical batch size with the noise scale."""
    steps = [step for step, _ in measure_steps(quick)["sgd"]]
    critical = fit_critical_batch(SIZES, steps)[1]
    simple, weighted = (noise_scale(quick, each) for each in (False, True))
    return {
        "ratio": exact(critical / simple),
        "weighted_ratio": exact(critical / weighted),
        "critical": exact(critical),
        "simple": exact(simple),
    }


def decide_noise_scale(m: Quantities) -> Decision:
    """Return the verdict: the critical batch size is within a factor of the simple noise scale."""
    return all_of(is_within(m["ratio"], 1 / AGREES, AGREES))


def measure_methods(quick: bool) -> Quantities:
    """Compare gradient descent with momentum and with a preconditioner over batch sizes."""
    curves = {name: [step for step, _ in results] for name, results in measure_steps(quick).items()}
    critical = {name: fit_critical_batch(SIZES, curve)[1] for name, curve in curves.items()}
    return {
        "large": exact(curves["sgd"][-1] / curves["momentum"][-1]),
        "small": exact(curves["sgd"][0] / curves["momentum"][0]),
        "momentum": exact(critical["momentum"] / critical["sgd"]),
        "preconditioned": exact(critical["preconditioned"] / critical["sgd"]),
    }


def decide_methods(m: Quantities) -> Decision:
    """Return the verdict: momentum helps at large batches alone, and both raise the critical batch size."""
    return all_of(
        is_above(m["large"], HELPS),
        is_within(m["small"], 1 / LITTLE, LITTLE),
        is_above(m["momentum"], RAISES),
        is_above(m["preconditioned"], RAISES),
    )
