"""Identities of Adam with RMSprop and with momentum, and its distance from AdaDelta."""

from typing import Any

import torch
from torch import Tensor

from gradprix.explain.tracing import step
from gradprix.rules import adadelta, adam, rmsprop, sgd
from gradprix.tasks.rng import stream

from ._claim import Claim, Finding, Measured, exact, mean
from ._problems import updates

N, QUICK, STEPS, D = 24, 6, 200, 20
ROUNDING = 1e-12  # relative to the whole movement
APART = 0.1
BETA = 0.9
HUGE, TELL = 1e8, 1e-6  # ε against gradients of about 1: the second moment contributes a hundred-millionth


def noise(n: int) -> Tensor:
    """Return gradients with random mean and noise, `[steps, n, d]`."""
    generator = stream(0, "gradients")
    centre = torch.randn(n, D, generator=generator, dtype=torch.float64)
    return centre + torch.randn(STEPS, n, D, generator=generator, dtype=torch.float64)


def relative_distance(a: Tensor, b: Tensor, scaled: bool = False) -> Tensor:
    """Return the distance of updates b from a relative to a, for each problem.

    Args:
        a: `[steps, n, d]`.
        b: `[steps, n, d]`.
        scaled: rescale b for the best fit.
    """
    best = (a * b).sum((0, 2)) / (b * b).sum((0, 2)) if scaled else torch.ones(a.shape[1], dtype=torch.float64)
    return (a - best[:, None] * b).square().sum((0, 2)).sqrt() / a.square().sum((0, 2)).sqrt()


def parts(quick: bool) -> Finding:
    """Compare Adam without momentum and bias correction with RMSprop and AdaDelta on equal gradients."""
    gradients = noise(QUICK if quick else N)
    bare = updates(adam, gradients, lr=0.01, beta1=0.0, beta2=0.99, eps=1e-8, uncorrected=True)
    root = updates(rmsprop, gradients, lr=0.01, alpha=0.99, eps=1e-8)
    delta = updates(adadelta, gradients, lr=1.0, rho=0.99, eps=1e-8)
    whole = updates(adam, gradients, lr=0.01, beta1=0.9, beta2=0.99, eps=1e-8, uncorrected=True)
    after = updates(rmsprop, gradients, lr=0.001, alpha=0.99, eps=1e-8, momentum=0.9)
    return judged_parts(
        exact(
            "Adam with β₁ = 0, uncorrected, from RMSprop, share of the movement",
            float(relative_distance(bare, root).max()),
            len(bare[0]),
        ),
        mean(
            "Adam with β₁ = 0, uncorrected, from AdaDelta at its best rate, share of the movement",
            relative_distance(bare, delta, scaled=True).tolist(),
        ),
        mean(
            "Adam, uncorrected, from RMSprop with momentum after the division", relative_distance(whole, after).tolist()
        ),
    )


def judged_parts(rms: Measured, delta: Measured, after: Measured) -> Finding:
    """Return the verdict from the two distances."""
    says = (
        f"Without momentum and correction Adam is RMSprop to within {rms.text('.0e')} of its movement, and "
        f"{delta.text()} away from AdaDelta at the best rate for that. With momentum it is no RMSprop with momentum, "
        f"either: {after.text()} away, since Adam averages gradients before it divides."
    )
    if delta.effect <= ROUNDING:
        return Finding("holds", says, (delta, rms, after))
    is_rmsprop = rms.effect <= ROUNDING and delta.ci95[0] > APART
    return Finding("does not hold" if is_rmsprop else "not settled", says, (delta, rms, after))


def momentum(quick: bool) -> Finding:
    """Compare Adam with an ε that dominates its second moment with momentum on equal gradients."""
    gradients = noise(QUICK if quick else N)
    zero, state, heavy = torch.zeros_like(gradients[0]), dict[str, Any](), {"momentum": BETA, "dampening": BETA}
    # The bias correction acts as a learning rate per step, which the momentum rule receives.
    corrected = torch.stack([
        step(sgd, sgd.values(lr=0.01 / (1 - BETA**t), dampen_first=True, **heavy), t, zero, g, state)["x"]
        for t, g in enumerate(gradients, 1)
    ])  # fmt: skip
    plain = updates(sgd, gradients, lr=0.01, dampen_first=True, **heavy)
    ours = updates(adam, gradients, lr=0.01 * HUGE, beta1=BETA, eps=HUGE)
    bare = updates(adam, gradients, lr=0.01 * HUGE, beta1=BETA, eps=HUGE, uncorrected=True)
    usual = updates(adam, gradients, lr=0.01, beta1=BETA)
    n = gradients.shape[1]
    return judged_momentum(
        exact(
            "Adam with ε = 1e8 from momentum over 1 − β₁ᵗ, share of the movement",
            float(relative_distance(ours, corrected).max()),
            n,
        ),
        exact("Adam with ε = 1e8, uncorrected, from momentum", float(relative_distance(bare, plain).max()), n),
        mean(
            "Adam with its usual ε from momentum at its best rate",
            relative_distance(usual, corrected, scaled=True).tolist(),
        ),
    )


def judged_momentum(ours: Measured, bare: Measured, usual: Measured) -> Finding:
    """Return the verdict from the largest distance."""
    says = (
        f"With ε = 1e8 and the rate in proportion Adam is bias-corrected momentum to within {ours.text('.0e')} of "
        f"its movement, uncorrected it is momentum to within {bare.text('.0e')}; with its usual ε it is "
        f"{usual.text()} away."
    )
    return Finding("holds" if max(ours.effect, bare.effect) <= TELL else "does not hold", says, (ours, bare, usual))


CLAIMS = (
    Claim(
        "adam-is-adadelta-plus-momentum",
        "Adam is AdaDelta with momentum.",
        "Without its momentum (β₁ = 0) and its correction for starting at zero, Adam makes AdaDelta's updates.",
        f"{STEPS} steps on the same {N} random sequences of gradients. Holds when the movements agree with "
        f"AdaDelta's, at the rate that brings it nearest, to {ROUNDING:g}. Does not hold when they agree with "
        f"RMSprop's to {ROUNDING:g} and are further than {APART:g} of the movement from AdaDelta's, 95 % interval "
        "and all; else not settled.",
        parts,
        "landscapes",
        "Kingma & Ba 2015, arXiv:1412.6980, section 5",
    ),
    Claim(
        "adam-with-huge-eps-is-momentum",
        "Adam contains momentum.",
        "With an ε that drowns the second moment, and the rate in proportion, Adam makes the updates of momentum, "
        "corrected for starting at zero.",
        f"{STEPS} steps on the same {N} random sequences of gradients, ε = {HUGE:g}: holds when the movements differ "
        f"by at most {TELL:g} of themselves, with the correction and without; else does not hold.",
        momentum,
        "landscapes",
        "Choi et al. 2019, arXiv:1910.05446, section 3",
    ),
)
