"""Measurements of a network during training: curvature, gradient noise and progress per group of examples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor
from torch.utils._pytree import tree_map

from gradprix.race.diagnosis_record import MeasurementKind

from .loss_probe import LossProbe, Tensors

NAN = float("nan")
BATCHES = 16
"""Batches used to estimate the gradient noise."""
TOLERANCE = 0.03
"""Tolerated relative error of an eigenvalue; results are printed with two digits."""


@dataclass(frozen=True)
class Point:
    """Measurements at one step of one run.

    They can be added over steps, which is necessary because a single step is mostly noise. In the formulas, g and h are
    the gradients of the loss on two independent samples, H is the Hessian of the loss on both, and u is the update.

    Args:
        share: progress of the run, from 0 to 1.
        factor: the schedule's factor on the learning rate.
        slope: uᵀ(g + h) / 2, the first-order change of the loss.
        bend: uᵀHu.
        length: gᵀh, an estimate of the squared gradient norm that is free of noise bias.
        groups: the pair uᵀ(k + l) / 2, (kᵀh + lᵀg) / 2 for each group of examples, where k and l are the gradients of
            the group's loss on the two samples.
        spread: tr Σ, the variance of one example's gradient summed over weights; NaN if not measured.
        signal: |G|², the squared norm of the full gradient, corrected for noise bias; NaN if not measured.
        sharpness: λmax of H; NaN if not measured.
        seen: λmax of √P H √P, where P holds the rule's gain for each weight: the preconditioned sharpness; NaN if not
            measured.
        gain: median of the rule's gain over the weights that have had a gradient; NaN if not measured.
    """

    share: float
    factor: float
    slope: float
    bend: float
    length: float
    groups: Mapping[MeasurementKind, tuple[float, float]]
    spread: float = NAN
    signal: float = NAN
    sharpness: float = NAN
    seen: float = NAN
    gain: float = NAN

    @property
    def finite(self) -> bool:
        """True if all sums are finite."""
        return bool(np.isfinite([self.slope, self.bend, self.length, *sum(self.groups.values(), ())]).all())


def measure(
    probe: LossProbe,
    weights: Tensors,
    update: Tensors,
    earlier: Tensors | None,
    batch_size: int,
    share: float,
    factor: float,
    wholly: bool,
    gains: Tensors | None = None,
) -> Point:
    """Measure a network at one optimizer step.

    Args:
        probe: training loss of the run.
        weights: all parameters and buffers before the step.
        update: change of each trained parameter in the step.
        earlier: weights at an earlier step, at which the hardest examples are selected; None omits the groups.
        batch_size: examples per step; 0 for full batches.
        share: progress of the run, from 0 to 1.
        factor: the schedule's factor on the learning rate.
        wholly: also measure gradient noise and sharpness, which take longest.
        gains: the rule's gain for each weight; None omits the preconditioned sharpness.
    """
    fixed = {name: x for name, x in weights.items() if name not in update}
    x = [weights[name].detach().requires_grad_() for name in update]
    u = list(update.values())
    parameters = {**fixed, **dict(zip(update, x, strict=True))}
    halves = probe.sample(batch_size)
    g, h = (_loss_gradient(probe.loss(parameters, *half), x, graph=True) for half in halves)
    whole = [(a + b) / 2 for a, b in zip(g, h, strict=True)]
    curved = _hessian_product(whole, x)
    groups = {} if earlier is None else _measure_groups(probe, parameters, x, u, earlier, halves, (g, h))
    point = Point(share, factor, _dot(whole, u), _dot(curved(u), u), _dot(g, h), groups)
    if not wholly or not point.finite:
        return point
    spread, signal, count = NAN, NAN, len(probe.train)
    if 0 < batch_size < count:
        samples = [_loss_gradient(probe.loss(parameters, *batch), x) for batch in probe.batches(batch_size, BATCHES)]
        spread, signal = estimate_noise(samples, batch_size, count)
    sharp = sharpness(curved, x)
    if gains is None or not all(bool(p.isfinite().all()) for p in gains.values()):
        return replace(point, spread=spread, signal=signal, sharpness=sharp)
    root_gains = [gains[name].sqrt() for name in update]

    def preconditioned(vector: Sequence[Tensor]) -> list[Tensor]:
        products = curved([r * v for r, v in zip(root_gains, vector, strict=True)])
        return [r * h for r, h in zip(root_gains, products, strict=True)]

    all_gains = torch.cat([gains[name].flatten() for name in update])
    median_gain = float(all_gains[all_gains > 0].median()) if bool((all_gains > 0).any()) else NAN
    seen = sharpness(preconditioned, x)
    return replace(point, spread=spread, signal=signal, sharpness=sharp, seen=seen, gain=median_gain)


def sharpness(curved: Callable[[Sequence[Tensor]], list[Tensor]], x: Sequence[Tensor]) -> float:
    """Return the largest eigenvalue of a Hessian by Lanczos iteration (ARPACK); NaN if it does not converge.

    Args:
        curved: Hessian-vector product, for vectors with the shapes of `x`.
        x: the weights.
    """
    sizes, count = [y.numel() for y in x], sum(y.numel() for y in x)

    def times(flat: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        whole = torch.from_numpy(np.asarray(flat).ravel())
        parts = torch.split(whole, sizes)
        eigenvalues = curved([part.view(y.shape).to(y.dtype) for part, y in zip(parts, x, strict=True)])
        return torch.cat([part.flatten() for part in eigenvalues]).double().numpy()

    if count <= 3:  # ARPACK needs more dimensions
        full = np.stack([times(row) for row in np.eye(count)])
        return float(np.linalg.eigvalsh(full)[-1])
    start = np.random.default_rng(0).standard_normal(count)
    if not times(start).any():
        return 0.0
    operator = LinearOperator((count, count), matvec=times, dtype=np.float64)
    try:
        eigenvalues = eigsh(operator, 1, which="LA", tol=TOLERANCE, v0=start, maxiter=100, return_eigenvectors=False)
    except ArpackError:
        return NAN
    return float(eigenvalues[0])


def estimate_noise(gradients: Sequence[Sequence[Tensor]], size: int, count: int) -> tuple[float, float]:
    """Return unbiased estimates of tr Σ and |G|² from batches (McCandlish et al. 2018, arXiv:1812.06162, appendix A).

    tr Σ is the variance of one example's gradient, summed over weights, and |G|² the squared norm of the full gradient.

    Args:
        gradients: gradients of independent batches, each drawn without replacement.
        size: batch size b.
        count: number N of training examples. The variance of a batch drawn without replacement is 1 − b / N times that
            of a batch drawn with replacement, which is corrected for.
    """
    flat = torch.stack([torch.cat([g.flatten() for g in each]) for each in gradients]).double()
    mean = flat.mean(0)
    spread = float((flat - mean).square().sum() / (len(flat) - 1))
    return size * spread / (1 - size / count), float(mean.square().sum()) - spread / len(flat)


def _measure_groups(
    probe: LossProbe,
    parameters: Tensors,
    x: Sequence[Tensor],
    update: Sequence[Tensor],
    earlier: Tensors,
    halves: Sequence[Any],
    gradients: Sequence[Sequence[Tensor]],
) -> dict[MeasurementKind, tuple[float, float]]:
    """Return the products of each group's gradient with the update and with the plain gradient, as in `Point.groups`.

    The group's gradient and the plain gradient come from different samples, so that their product is unbiased.
    """
    chosen = [probe.groups(earlier, *half) for half in halves]
    changes = {}
    for group in chosen[0].keys() & chosen[1].keys():
        by_step, by_gradient = 0.0, 0.0
        for half, own, other in zip(halves, chosen, reversed(gradients), strict=True):
            part = tree_map(lambda y, i=own[group]: y[i], half)
            k = _loss_gradient(probe.loss(parameters, *part), x)
            by_step, by_gradient = by_step + _dot(k, update) / 2, by_gradient + _dot(k, other) / 2
        changes[group] = (by_step, by_gradient)
    return changes


def _loss_gradient(loss: Tensor, x: Sequence[Tensor], graph: bool = False) -> list[Tensor]:
    gradients = torch.autograd.grad(loss, x, create_graph=graph, allow_unused=True)
    return [torch.zeros_like(y) if g is None else g for g, y in zip(gradients, x, strict=True)]


def _hessian_product(gradient: Sequence[Tensor], x: Sequence[Tensor]) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """Return a function that multiplies a vector by the Hessian.

    The product is the gradient of the dot product of `gradient` and the vector (Pearlmutter 1994).
    """
    differentiable = [g for g in gradient if g.requires_grad]

    def curved(vector: Sequence[Tensor]) -> list[Tensor]:
        own = [v for g, v in zip(gradient, vector, strict=True) if g.requires_grad]
        if not differentiable:
            return [torch.zeros_like(y) for y in x]
        products = torch.autograd.grad(differentiable, x, own, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(y) if h is None else h for h, y in zip(products, x, strict=True)]

    return curved


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return float(sum((y.detach().double() * z.detach().double()).sum() for y, z in zip(a, b, strict=True)))
