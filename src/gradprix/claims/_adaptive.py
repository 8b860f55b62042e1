"""Adaptive learning rates: their correlation with the size of gradients."""

import torch
from scipy.stats import spearmanr
from torch import Tensor

from gradprix.rules import Rule, adadelta, adagrad, adam, adamax, rmsprop, sgd
from gradprix.tasks.rng import stream

from ._claim import Claim, Finding, Measured, Verdict, mean
from ._problems import Quadratics, tuned, walk

N, QUICK = 24, 6
D, DECADES, NOISE, STEPS = 32, 2.0, 0.3, 300
EFFECT = 0.1
RULES = {"AdaGrad": adagrad, "RMSprop": rmsprop, "AdaDelta": adadelta, "Adam": adam, "AdaMax": adamax}


def uneven(n: int, seed: int) -> Quadratics:
    """Return random quadratics with coordinates of different scales, like layers and features, and proportional noise.

    Curvature S R S: scales S log-uniform over two decades, R a random correlation matrix.
    """
    generator = stream(seed, "uneven quadratics")
    scale = 10 ** (DECADES * torch.rand(n, D, generator=generator, dtype=torch.float64))
    factors = torch.randn(n, D, 2 * D, generator=generator, dtype=torch.float64)
    factors = factors / factors.norm(dim=-1, keepdim=True)
    curvature = scale[:, :, None] * (factors @ factors.mT) * scale[:, None, :]
    return Quadratics(curvature, torch.randn(n, D, generator=generator, dtype=torch.float64) / scale, NOISE * scale)


def sizes(rule: Rule, problems: Quadratics) -> tuple[Tensor, Tensor]:
    """Return root mean squares of updates and of gradients over a tuned descent, for each coordinate, `[n, d]`."""
    gradients: list[Tensor] = []
    noisy = problems.noisy(1)

    def gradient(x: Tensor) -> Tensor:
        gradients.append(noisy(x))
        return gradients[-1]

    lr = tuned(rule, problems, STEPS, seed=0)
    points = torch.stack(list(walk(rule, gradient, problems.start, STEPS, lr=lr)))
    return (points[1:] - points[:-1]).square().mean(0).sqrt(), torch.stack(gradients).square().mean(0).sqrt()


def correlations(rule: Rule, problems: Quadratics) -> tuple[list[float], list[float]]:
    """Return Spearman's correlation of gradient sizes with learning rates and with updates, per problem."""
    updates, gradients = sizes(rule, problems)
    rates = updates / gradients
    return tuple(
        [float(spearmanr(values, size).statistic) for values, size in zip(quantity, gradients, strict=True)]
        for quantity in (rates, updates)
    )  # type: ignore[return-value]


def follow(quick: bool) -> Finding:
    """Correlate on every problem for every adaptive rule, and for gradient descent with its single learning rate."""
    problems = uneven(QUICK if quick else N, seed=0)
    rates, updates = [], []
    for name, rule in RULES.items():
        of_rates, of_updates = correlations(rule, problems)
        rates.append(mean(f"rank correlation of rate and gradient over coordinates, {name}", of_rates))
        updates.append(mean(f"rank correlation of update and gradient over coordinates, {name}", of_updates))
    plain = mean("rank correlation of update and gradient, gradient descent", correlations(sgd, problems)[1])
    return judged(rates, [*updates, plain])


def judged(rates: list[Measured], updates: list[Measured]) -> Finding:
    """Return the verdict from one correlation per rule."""
    larger = [m for m in rates if m.ci95[0] > EFFECT]
    smaller = [m for m in rates if m.ci95[1] < -EFFECT]
    verdict: Verdict = "not settled"
    if len(larger) == len(rates):
        verdict = "holds"
    elif len(smaller) == len(rates):
        verdict = "does not hold"
    elif larger:
        verdict = "holds only if"
    names = [m.what.rpartition(", ")[2] for m in rates]
    condition = "it is " + " or ".join(m.what.rpartition(", ")[2] for m in larger) if verdict == "holds only if" else ""
    listed = ", ".join(f"{name} {m.text()}" for name, m in zip(names, rates, strict=True))
    says = (
        f"Rank correlations of a coordinate's rate with the size of its gradient: {listed}. Of the updates "
        f"themselves: {updates[3].text()} for Adam, {updates[0].text()} for AdaGrad, and by definition "
        f"{updates[-1].text()} for gradient descent."
    )
    return Finding(verdict, says, (*rates, *updates), condition)


CLAIMS = (
    Claim(
        "adaptive-steps-follow-gradients",
        "Adaptive rates take larger steps in directions where gradients are larger, smaller ones where they are small.",
        "The effective rate of a coordinate, its root mean square update over its root mean square gradient, grows "
        "with the size of its gradient.",
        f"Spearman's correlation over the {D} coordinates of {N} random quadratics, whose scales differ up to "
        f"{10**DECADES:g} times, with noise in the gradients, over {STEPS} steps at each rule's tuned rate. Holds "
        f"when the 95 % interval of the mean is above {EFFECT:g} for all of {', '.join(RULES)}; does not hold when "
        f"it is below −{EFFECT:g} for all; holds only if when above for some; else not settled.",
        follow,
        "landscapes",
        "Duchi, Hazan & Singer 2011, JMLR 12:2121-2159",
    ),
)
