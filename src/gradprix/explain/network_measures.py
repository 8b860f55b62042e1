"""A network looked into at one point of its training: curvature, noise, and whom the step serves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor
from torch.utils._pytree import tree_map

from .loss_probe import Looked, Tensors

NAN = float("nan")
BATCHES = 16
"""Batches that the noise of gradients is measured by."""
TOLERANCE = 0.03
"""Relative error of an eigenvalue: a sentence says it in two digits."""


@dataclass(frozen=True)
class Point:
    """What was found at one step of one run, as sums that can be added over steps: one step is mostly noise.

    With g and h the gradients of the loss of two samples, H the Hessian of both, and u the update:

    Args:
        share: how far the run was.
        factor: what the schedule made of the learning rate.
        slope: uᵀ(g + h) / 2: what the loss changes by to first order.
        bend: uᵀHu.
        length: gᵀh, which the noise of neither adds to.
        groups: for groups of examples with the gradients k and l of their loss in the two samples: uᵀ(k + l) / 2, and
            (kᵀh + lᵀg) / 2.
        spread: tr Σ, the variance of one example's gradient; not a number where it was not looked at.
        signal: |G|², without what noise adds to it; likewise.
        sharpness: λmax of H; likewise.
        seen: λmax of √P H √P, where P holds the rule's gain for each weight: the curvature that it sees; likewise.
    """

    share: float
    factor: float
    slope: float
    bend: float
    length: float
    groups: Mapping[str, tuple[float, float]]
    spread: float = NAN
    signal: float = NAN
    sharpness: float = NAN
    seen: float = NAN

    @property
    def finite(self) -> bool:
        """Whether all of it are numbers that can be added."""
        return bool(np.isfinite([self.slope, self.bend, self.length, *sum(self.groups.values(), ())]).all())


def measure(
    looked: Looked,
    weights: Tensors,
    update: Tensors,
    earlier: Tensors | None,
    batch_size: int,
    share: float,
    factor: float,
    wholly: bool,
    gains: Tensors | None = None,
) -> Point:
    """Look into a network.

    Args:
        looked: the loss.
        weights: every parameter and buffer before the step.
        update: what the step adds to each parameter that it moves.
        earlier: the weights some time before, by which examples are hard; without them groups are not looked at.
        batch_size: examples of the step; 0 for all.
        share: how far the run is.
        factor: on the learning rate at the step.
        wholly: whether noise and sharpness are wanted, which take longest.
        gains: the rule's gain for each weight, where it has one.
    """
    rest = {name: x for name, x in weights.items() if name not in update}
    x = [weights[name].detach().requires_grad_() for name in update]
    u = list(update.values())
    here = {**rest, **dict(zip(update, x, strict=True))}
    halves = looked.sample(batch_size)
    g, h = (_gradient(looked.loss(here, *half), x, graph=True) for half in halves)
    whole = [(a + b) / 2 for a, b in zip(g, h, strict=True)]
    curved = _times(whole, x)
    groups = {} if earlier is None else _served(looked, here, x, u, earlier, halves, (g, h))
    found = Point(share, factor, _dot(whole, u), _dot(curved(u), u), _dot(g, h), groups)
    if not wholly or not found.finite:
        return found
    spread, signal, count = NAN, NAN, len(looked.train)
    if 0 < batch_size < count:
        each = [_gradient(looked.loss(here, *batch), x) for batch in looked.batches(batch_size, BATCHES)]
        spread, signal = noise(each, batch_size, count)
    sharp = sharpness(curved, x)
    if gains is None or not all(bool(p.isfinite().all()) for p in gains.values()):
        return replace(found, spread=spread, signal=signal, sharpness=sharp)
    roots = [gains[name].sqrt() for name in update]

    def seen_by_it(vector: Sequence[Tensor]) -> list[Tensor]:
        bent = curved([r * v for r, v in zip(roots, vector, strict=True)])
        return [r * h for r, h in zip(roots, bent, strict=True)]

    return replace(found, spread=spread, signal=signal, sharpness=sharp, seen=sharpness(seen_by_it, x))


def sharpness(curved: Callable[[Sequence[Tensor]], list[Tensor]], x: Sequence[Tensor]) -> float:
    """The largest eigenvalue of a Hessian, by Lanczos' method (ARPACK); not a number when it is not found.

    Args:
        curved: multiplies it with a vector, which has the shapes of `x`.
        x: the weights.
    """
    sizes, count = [y.numel() for y in x], sum(y.numel() for y in x)

    def times(flat: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        whole = torch.from_numpy(np.asarray(flat).ravel())
        parts = torch.split(whole, sizes)
        found = curved([part.view(y.shape).to(y.dtype) for part, y in zip(parts, x, strict=True)])
        return torch.cat([part.flatten() for part in found]).double().numpy()

    if count <= 3:  # ARPACK wants room
        full = np.stack([times(row) for row in np.eye(count)])
        return float(np.linalg.eigvalsh(full)[-1])
    start = np.random.default_rng(0).standard_normal(count)
    if not times(start).any():
        return 0.0
    operator = LinearOperator((count, count), matvec=times, dtype=np.float64)
    try:
        found = eigsh(operator, 1, which="LA", tol=TOLERANCE, v0=start, maxiter=100, return_eigenvectors=False)
    except ArpackError:
        return NAN
    return float(found[0])


def noise(gradients: Sequence[Sequence[Tensor]], size: int, count: int) -> tuple[float, float]:
    """The variance tr Σ and |G|², unbiased, by batches (McCandlish et al. 2018, arXiv:1812.06162, appendix A).

    Args:
        gradients: of batches, drawn without replacement within each.
        size: of a batch.
        count: of all examples: a batch of b of them has 1 − b / N of the noise of one with replacement.
    """
    flat = torch.stack([torch.cat([g.flatten() for g in each]) for each in gradients]).double()
    mean = flat.mean(0)
    spread = float((flat - mean).square().sum() / (len(flat) - 1))
    return size * spread / (1 - size / count), float(mean.square().sum()) - spread / len(flat)


def _served(
    looked: Looked,
    here: Tensors,
    x: Sequence[Tensor],
    u: Sequence[Tensor],
    earlier: Tensors,
    halves: Sequence[Any],
    gradients: Sequence[Sequence[Tensor]],
) -> dict[str, tuple[float, float]]:
    """How the step and the plain gradient change the loss of groups of examples."""
    chosen = [looked.groups(earlier, *half) for half in halves]
    found = {}
    for group in chosen[0].keys() & chosen[1].keys():
        by_step, by_gradient = 0.0, 0.0
        for half, own, other in zip(halves, chosen, reversed(gradients), strict=True):
            part = tree_map(lambda y, i=own[group]: y[i], half)
            k = _gradient(looked.loss(here, *part), x)
            by_step, by_gradient = by_step + _dot(k, u) / 2, by_gradient + _dot(k, other) / 2
        found[group] = (by_step, by_gradient)
    return found


def _gradient(loss: Tensor, x: Sequence[Tensor], graph: bool = False) -> list[Tensor]:
    found = torch.autograd.grad(loss, x, create_graph=graph, allow_unused=True)
    return [torch.zeros_like(y) if g is None else g for g, y in zip(found, x, strict=True)]


def _times(gradient: Sequence[Tensor], x: Sequence[Tensor]) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """Multiplies the Hessian with a vector: the gradient of the gradient's product with it (Pearlmutter 1994)."""
    moving = [g for g in gradient if g.requires_grad]

    def curved(vector: Sequence[Tensor]) -> list[Tensor]:
        own = [v for g, v in zip(gradient, vector, strict=True) if g.requires_grad]
        if not moving:
            return [torch.zeros_like(y) for y in x]
        found = torch.autograd.grad(moving, x, own, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(y) if h is None else h for h, y in zip(found, x, strict=True)]

    return curved


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return float(sum((y.detach().double() * z.detach().double()).sum() for y, z in zip(a, b, strict=True)))
