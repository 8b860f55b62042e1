"""Adaptive learning rates: their correlation with the sizes of the gradients."""

import torch
from scipy.stats import spearmanr
from torch import Tensor

from gradprix.rules import Rule, adadelta, adagrad, adam, adamax, rmsprop, sgd
from gradprix.tasks.rng import stream

from .claim import experiment
from .decisions import Decision
from .estimates import Measured, mean
from .quadratics import Quadratics, trajectory, tuned
from .registry import Quantities

N, QUICK = 24, 6
D, DECADES, NOISE, STEPS = 32, 2.0, 0.3, 300
EFFECT = 0.1
RULES = {"AdaGrad": adagrad, "RMSprop": rmsprop, "AdaDelta": adadelta, "Adam": adam, "AdaMax": adamax}


def badly_scaled_quadratics(n: int, seed: int) -> Quadratics:
    """Return random quadratics whose coordinates have different scales, as layers and features have.

    The Hessian is S R S with a diagonal matrix S of scales, log-uniform over two decades, and a random correlation
    matrix R. The gradient noise of a coordinate is proportional to its scale.

    Args:
        n: number of problems.
        seed: seed of the problems.
    """
    generator = stream(seed, "uneven quadratics")
    scale = 10 ** (DECADES * torch.rand(n, D, generator=generator, dtype=torch.float64))
    factors = torch.randn(n, D, 2 * D, generator=generator, dtype=torch.float64)
    factors = factors / factors.norm(dim=-1, keepdim=True)
    curvature = scale[:, :, None] * (factors @ factors.mT) * scale[:, None, :]
    return Quadratics(curvature, torch.randn(n, D, generator=generator, dtype=torch.float64) / scale, NOISE * scale)


def correlations(rule: Rule, problems: Quadratics) -> tuple[list[float], list[float]]:
    """Return the rank correlations of gradient size with effective learning rate and with update size.

    The sizes are root mean squares over a descent with tuned learning rate, and the effective learning rate is their
    ratio. The correlation is Spearman's over the coordinates of a problem.

    Returns:
        Two lists with one correlation per problem: with the learning rates, and with the updates.
    """
    gradients: list[Tensor] = []
    noisy_gradient = problems.noisy_gradient(1)

    def gradient(x: Tensor) -> Tensor:
        gradients.append(noisy_gradient(x))
        return gradients[-1]

    points = trajectory(rule, gradient, problems.start, STEPS, lr=tuned(rule, problems, STEPS, seed=0))
    update_size = (points[1:] - points[:-1]).square().mean(0).sqrt()
    gradient_size = torch.stack(gradients).square().mean(0).sqrt()
    learning_rates, updates = (
        [float(spearmanr(a, b).statistic) for a, b in zip(size, gradient_size, strict=True)]
        for size in (update_size / gradient_size, update_size)
    )
    return learning_rates, updates


def decide(m: Quantities) -> Decision:
    """Return the verdict from the correlation of gradient size with learning rate for each rule."""
    larger = [name for name in RULES if m[name].ci95[0] > EFFECT]
    if larger:
        return "holds" if len(larger) == len(RULES) else ("holds only if", f"it is {' or '.join(larger)}")
    return "does not hold" if all(m[name].ci95[1] < -EFFECT for name in RULES) else "inconclusive"


@experiment(
    "adaptive-steps-follow-gradients",
    decide=decide,
    say=lambda m: (
        "Rank correlations of a coordinate's learning rate with the size of its gradient: "
        f"{', '.join(f'{name} {m[name]}' for name in RULES)}. Of the updates themselves: {m['updates Adam']} for "
        f"Adam, {m['updates AdaGrad']} for AdaGrad, and by definition {m['updates SGD']} for gradient descent."
    ),
)
def measure(quick: bool) -> Quantities:
    """Measure the correlations for each adaptive rule, and for gradient descent with its single learning rate."""
    problems = badly_scaled_quadratics(QUICK if quick else N, seed=0)
    learning_rates: dict[str, Measured] = {}
    updates: dict[str, Measured] = {}
    for name, rule in RULES.items():
        of_rates, of_updates = correlations(rule, problems)
        learning_rates[name] = mean(of_rates)
        updates[f"updates {name}"] = mean(of_updates)
    plain = mean(correlations(sgd, problems)[1])
    return {**learning_rates, **updates, "updates SGD": plain}
