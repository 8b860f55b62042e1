"""Identities of Adam with RMSprop and with momentum, and its distance from AdaDelta."""

from typing import Any

import torch
from torch import Tensor

from gradprix.explain.tracing import step
from gradprix.optim.variants import with_options
from gradprix.rules import adadelta, adam, rmsprop, sgd
from gradprix.tasks.rng import stream

from .claim import experiment
from .decisions import Decision, all_of
from .estimates import exact, mean
from .quadratics import updates
from .registry import Quantities

N, QUICK, STEPS, D = 24, 6, 200, 20
ROUNDING = 1e-12  # relative to the norm of all updates
APART = 0.1
BETA = 0.9
UNCORRECTED, DAMPENED = with_options(adam, {"uncorrected": True}), with_options(sgd, {"dampen_first": True})
HUGE, SAME = 1e8, 1e-6  # ε and tolerance: gradients are about 1, so the second moment is negligible beside ε


def random_gradients(n: int) -> Tensor:
    """Return gradients for `n` problems, `[steps, n, d]`, the sum of a random constant and random noise."""
    generator = stream(0, "gradients")
    centre = torch.randn(n, D, generator=generator, dtype=torch.float64)
    return centre + torch.randn(STEPS, n, D, generator=generator, dtype=torch.float64)


def relative_distance(a: Tensor, b: Tensor, scaled: bool = False) -> Tensor:
    """Return the norm of the difference of updates relative to the norm of `a`, for each problem, `[n]`.

    Args:
        a: updates, `[steps, n, d]`.
        b: updates to compare, `[steps, n, d]`.
        scaled: multiply `b` by the factor that minimizes the distance.
    """
    best = (a * b).sum((0, 2)) / (b * b).sum((0, 2)) if scaled else torch.ones(a.shape[1], dtype=torch.float64)
    return (a - best[:, None] * b).square().sum((0, 2)).sqrt() / a.square().sum((0, 2)).sqrt()


def decide_parts(m: Quantities) -> Decision:
    """Return the verdict from the distances of Adam without momentum from AdaDelta and from RMSprop."""
    if m["adadelta"].effect <= ROUNDING:
        return "holds"
    is_rmsprop = m["rmsprop"].effect <= ROUNDING and m["adadelta"].ci95[0] > APART
    return "does not hold" if is_rmsprop else "inconclusive"


@experiment("adam-is-adadelta-plus-momentum", decide=decide_parts)
def measure_parts(quick: bool) -> Quantities:
    """Compare Adam without momentum and bias correction with RMSprop and AdaDelta, on the same gradients."""
    gradients = random_gradients(QUICK if quick else N)
    bare = updates(UNCORRECTED, gradients, lr=0.01, beta1=0.0, beta2=0.99, eps=1e-8)
    root = updates(rmsprop, gradients, lr=0.01, alpha=0.99, eps=1e-8)
    delta = updates(adadelta, gradients, lr=1.0, rho=0.99, eps=1e-8)
    whole = updates(UNCORRECTED, gradients, lr=0.01, beta1=0.9, beta2=0.99, eps=1e-8)
    after = updates(rmsprop, gradients, lr=0.001, alpha=0.99, eps=1e-8, momentum=0.9)
    return {
        "adadelta": mean(relative_distance(bare, delta, scaled=True)),
        "rmsprop": exact(float(relative_distance(bare, root).max()), len(bare[0])),
        "momentum": mean(relative_distance(whole, after)),
    }


@experiment(
    "adam-with-huge-eps-is-momentum",
    decide=lambda m: all_of(m["corrected"].effect <= SAME, m["uncorrected"].effect <= SAME),
)
def measure_momentum(quick: bool) -> Quantities:
    """Compare momentum with Adam at an ε far larger than its second moment, on the same gradients."""
    gradients = random_gradients(QUICK if quick else N)
    zero, state, heavy = torch.zeros_like(gradients[0]), dict[str, Any](), {"momentum": BETA, "dampening": BETA}
    # The bias correction is equivalent to a learning rate that changes with the step, which the momentum rule receives.
    corrected = torch.stack([
        step(DAMPENED, sgd.values(lr=0.01 / (1 - BETA**t), **heavy), t, zero, g, state)["x"]
        for t, g in enumerate(gradients, 1)
    ])  # fmt: skip
    plain = updates(DAMPENED, gradients, lr=0.01, **heavy)
    ours = updates(adam, gradients, lr=0.01 * HUGE, beta1=BETA, eps=HUGE)
    bare = updates(UNCORRECTED, gradients, lr=0.01 * HUGE, beta1=BETA, eps=HUGE)
    usual = updates(adam, gradients, lr=0.01, beta1=BETA)
    n = gradients.shape[1]
    return {
        "corrected": exact(float(relative_distance(ours, corrected).max()), n),
        "uncorrected": exact(float(relative_distance(bare, plain).max()), n),
        "usual": mean(relative_distance(usual, corrected, scaled=True)),
    }
