"""A network looked into at one point of its training: curvature, noise, and whom the step serves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from gradprix.tasks import Task
from gradprix.tasks._seeds import Luck, fresh, stream
from gradprix.tasks._task import called_with

FEWEST, MOST = 64, 512
"""Training examples that stand for all of them: eight batches' worth, within these."""
NAN = float("nan")
BATCHES = 16
"""Batches that the noise of gradients is measured by."""
HARDEST = 0.1
"""The share of examples with the largest losses."""
TOLERANCE = 0.03
"""Relative error of an eigenvalue: a sentence says it in two digits."""


class Looked:
    """A task's training loss under one seed, on a fixed sample of examples, as a function of the weights.

    Args:
        task: the problem.
        seed: of the run.
    """

    def __init__(self, task: Task, seed: int) -> None:
        self.task, self.seed = task, seed
        self.model: nn.Module = fresh(task.model, seed).eval()
        self.train = task.loaded.split(seed).train
        self.random = stream(seed, "explain")
        count = min(max(8 * task.batch_size, FEWEST), MOST)
        chosen = torch.randperm(len(self.train), generator=self.random)[:count]
        self.inputs, self.targets = self._take(self.train[chosen])

    def _take(self, index: Tensor) -> Any:
        examples = [Luck(stream(self.seed, "explain examples"))]
        return tree_map(lambda x: x[0], self.task.loaded.take(index[None], examples))

    def batches(self, size: int) -> list[Any]:
        """Batches of training examples, without replacement within each."""
        return [
            self._take(self.train[torch.randperm(len(self.train), generator=self.random)[:size]])
            for _ in range(BATCHES)
        ]

    def loss(self, weights: Mapping[str, Tensor], inputs: Any = None, targets: Any = None) -> Tensor:
        """The mean loss of some examples; of the sample when none are given."""
        inputs, targets = (self.inputs, self.targets) if inputs is None else (inputs, targets)
        args, kwargs = called_with(inputs)
        with Luck(stream(self.seed, "explain noise")):
            return self.task.loss(functional_call(self.model, dict(weights), args, kwargs), targets)


@dataclass(frozen=True)
class Point:
    """What was found at one step of one run, as sums that can be added over steps: one step is mostly noise.

    With g the gradient of the sample's loss, u the update, and H the sample's Hessian:

    Args:
        share: how far the run was.
        slope: gᵀu: what the loss changes by to first order.
        bend: uᵀHu.
        length: gᵀg.
        groups: for groups of examples with the gradient k of their loss: kᵀu and kᵀg.
        spread: tr Σ, the variance of one example's gradient; not a number where it was not looked at.
        signal: |G|², without what noise adds to it; likewise.
        sharpness: λmax; likewise.
    """

    share: float
    slope: float
    bend: float
    length: float
    groups: Mapping[str, tuple[float, float]]
    spread: float = NAN
    signal: float = NAN
    sharpness: float = NAN


def measure(
    looked: "Looked",
    weights: Mapping[str, Tensor],
    update: Mapping[str, Tensor],
    share: float,
    batch_size: int,
    wholly: bool,
) -> Point:
    """Look into a network.

    Args:
        looked: the loss.
        weights: every parameter and buffer before the step.
        update: what the step adds to each parameter that it moves.
        share: how far the run is.
        batch_size: examples of the steps it takes; 0 for all.
        wholly: whether noise and sharpness are wanted, which take longest.
    """
    rest = {name: x for name, x in weights.items() if name not in update}
    x = [weights[name].detach().requires_grad_() for name in update]
    u = list(update.values())
    here = {**rest, **dict(zip(update, x, strict=True))}
    gradient = _gradient(looked.loss(here), x, graph=True)
    curved = _times(gradient, x)
    plain = [g.detach() for g in gradient]
    groups = {}
    for group, index in _groups(looked, here).items():
        part = tree_map(lambda y, i=index: y[i], (looked.inputs, looked.targets))
        own = _gradient(looked.loss(here, *part), x)
        groups[group] = (_dot(own, u), _dot(own, plain))
    found = Point(share, _dot(plain, u), _dot(curved(u), u), _dot(plain, plain), groups)
    if not wholly:
        return found
    spread, signal = NAN, NAN
    if 0 < batch_size < len(looked.train):
        each = [_gradient(looked.loss(here, *batch), x) for batch in looked.batches(batch_size)]
        spread, signal = _noise(each, batch_size)
    return replace(found, spread=spread, signal=signal, sharpness=sharpness(curved, x))


def sharpness(curved: Callable[[Sequence[Tensor]], list[Tensor]], x: Sequence[Tensor]) -> float:
    """The largest eigenvalue of a Hessian, by Lanczos' method (ARPACK).

    Args:
        curved: multiplies it with a vector, which has the shapes of `x`.
        x: the weights.
    """
    sizes, count = [y.numel() for y in x], sum(y.numel() for y in x)

    def times(flat: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        whole = torch.from_numpy(np.asarray(flat).ravel())
        parts = torch.split(whole, sizes)
        found = curved([part.view(y.shape).to(y.dtype) for part, y in zip(parts, x, strict=True)])
        return torch.cat([h.flatten() for h in found]).double().numpy()

    if count <= 3:  # ARPACK wants room
        full = np.stack([times(row) for row in np.eye(count)])
        return float(np.linalg.eigvalsh(full)[-1])
    start = np.random.default_rng(0).standard_normal(count)
    operator = LinearOperator((count, count), matvec=times, dtype=np.float64)
    try:
        return float(
            eigsh(operator, k=1, which="LA", tol=TOLERANCE, v0=start, maxiter=100, return_eigenvectors=False)[0]
        )
    except ArpackNoConvergence:
        return float("nan")


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


def _noise(gradients: Sequence[Sequence[Tensor]], size: int) -> tuple[float, float]:
    """The variance tr Σ and |G|², unbiased, by batches (McCandlish et al. 2018, arXiv:1812.06162, appendix A)."""
    flat = torch.stack([torch.cat([g.flatten() for g in each]) for each in gradients]).double()
    mean = flat.mean(0)
    spread = float((flat - mean).square().sum() / (len(flat) - 1))
    return size * spread, float(mean.square().sum()) - spread / len(flat)


def _groups(looked: Looked, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Examples that a step may leave behind: the hardest tenth, and rare classes where there are classes."""
    with torch.no_grad():
        args, kwargs = called_with(looked.inputs)
        outputs = functional_call(looked.model, dict(weights), args, kwargs)
        count = len(looked.targets) if isinstance(looked.targets, Tensor) else 0
        if count == 0:
            return {}
        each = torch.stack(
            [looked.task.loss(*tree_map(lambda y, i=i: y[i : i + 1], (outputs, looked.targets))) for i in range(count)]
        )
    groups = {"the hardest tenth": each.topk(max(1, round(HARDEST * count))).indices}
    targets = looked.targets
    if targets.dim() == 1 and not targets.is_floating_point():
        shares = torch.bincount(targets).double() / count
        rare = [c for c in range(len(shares)) if 0 < shares[c] < 0.4 / int((shares > 0).sum())]
        chosen = torch.isin(targets, torch.tensor(rare)).nonzero()[:, 0] if rare else torch.tensor([])
        if len(chosen) >= 5:
            groups["rare classes"] = chosen
    return groups
