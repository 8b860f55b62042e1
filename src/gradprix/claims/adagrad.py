"""AdaGrad: coordinate-wise learning rates, and their decay, which according to the textbook ends learning."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradprix.rules import Rule, adagrad, sgd
from gradprix.tasks.rng import stream

from .claim import experiment
from .decisions import Decision, all_of, any_of, is_above, is_below
from .estimates import exact, mean
from .quadratics import Gradient, Quadratics, final_loss, final_point, iterates, quadratics, tuned, updates
from .registry import Quantities

N, QUICK = 24, 8
CONDITION, SHORT, DECADE = 100.0, 100, 1.0  # condition number, steps, decades of loss that count as an advantage
FEATURES, BATCHES = 64, {1: 2_000, 64: 200}  # number of features; number of updates by batch size
RARELY, LESS = 0.1, 1 / 1.1  # noise in targets; largest ratio of errors on rare features that counts as learning them
LONG, ROUNDING = 10_000, 1e-10
STEPS, D, NOISE, BEHIND = 1_000, 10, 0.3, 1.0  # the last: decades of loss by which a stalled descent is behind
LEAST = 1e-24  # relative loss below which only rounding remains


def log_loss(
    problems: Quadratics, rule: Rule, steps: int, lr: Tensor | float, seed: int | None = None, **values: float
) -> Tensor:
    """Return the decimal logarithm of the final loss relative to the initial loss, `[n]`.

    Args:
        problems: the quadratics.
        rule: the rule.
        steps: number of steps.
        lr: learning rate.
        seed: seed of the gradient noise; None for exact gradients.
        **values: other hyperparameters.
    """
    gradient = problems.gradient if seed is None else problems.noisy_gradient(seed)
    loss = final_loss(problems, iterates(rule, gradient, problems.start, steps, lr=lr, **values), steps)
    return (loss / problems.loss(problems.start)).clamp(min=LEAST).log10()


def ravines(n: int, degrees: float) -> Quadratics:
    """Return a ravine, rotated by an angle in degrees, with `n` random starting points."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rotation = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    curvature = rotation @ torch.diag(torch.tensor([1.0, CONDITION], dtype=torch.float64)) @ rotation.T
    start = torch.randn(n, 2, generator=stream(0, "starts of a ravine"), dtype=torch.float64)
    return Quadratics(curvature.expand(n, 2, 2), start @ rotation.T, torch.zeros(n, 2, dtype=torch.float64))


def advantage(degrees: float, n: int) -> Tensor:
    """Return the decades of loss by which AdaGrad ends below gradient descent in a rotated ravine, `[n]`.

    Both learning rates are tuned. The ravine is rotated by `degrees` and has `n` starting points.
    """
    problems = ravines(n, degrees)
    ours, plain = (log_loss(problems, rule, SHORT, tuned(rule, problems, SHORT)) for rule in (adagrad, sgd))
    return plain - ours


def decide_ravines(m: Quantities) -> Decision:
    """Return the verdict from AdaGrad's advantages in the aligned and in the rotated ravine."""
    aligned, rotated = is_above(m["aligned"], DECADE), is_above(m["rotated"], DECADE)
    if aligned and rotated is False:
        return "holds only if", "the terrain's directions are the coordinates"
    return "does not hold" if aligned is False else all_of(aligned, rotated)


@experiment("adagrad-adapts-to-directions", decide=decide_ravines)
def measure_ravines(quick: bool) -> Quantities:
    """Compare AdaGrad with gradient descent in a ravine parallel to an axis and in a rotated one."""
    n = QUICK if quick else N
    return {"aligned": mean(advantage(0, n)), "rotated": mean(advantage(45, n))}


@dataclass(frozen=True)
class SparseRegression(Quadratics):
    """Batch of linear regressions in which each example has a single feature, feature k with frequency ∝ 1 / k.

    The points are the errors of the weights, so that the minimum is at zero.

    Args:
        batch: number of examples per step.
    """

    batch: int

    def noisy_gradient(self, seed: int) -> Gradient:
        """Return a function that computes the gradients of random batches at points `[n, FEATURES]`."""
        generator, frequency = stream(seed, "examples with features"), self.curvature[0].diagonal()
        n = len(self.start)

        def gradient(x: Tensor) -> Tensor:
            index = torch.multinomial(frequency.expand(n, -1), self.batch, replacement=True, generator=generator)
            counts = torch.zeros(n, FEATURES, dtype=torch.float64)
            counts.scatter_add_(1, index, torch.ones(n, self.batch, dtype=torch.float64))
            noise = RARELY * torch.randn(n, FEATURES, generator=generator, dtype=torch.float64)
            return (counts * x + counts.sqrt() * noise) / self.batch

        return gradient


def rare_feature_errors(batch: int, n: int) -> tuple[Tensor, Tensor]:
    """Return the mean squared errors of the weights of the rarer half of the features, `[n]`, for AdaGrad and SGD.

    Args:
        batch: number of examples per step.
        n: number of regressions.
    """
    frequency = 1 / torch.arange(1, FEATURES + 1, dtype=torch.float64)
    sign = torch.randint(2, (n, FEATURES), generator=stream(0, "weights of features")).double() * 2 - 1
    curvature = torch.diag(frequency / frequency.sum()).expand(n, FEATURES, FEATURES)
    problems, steps = SparseRegression(curvature, sign, sign, batch), BATCHES[batch]
    ours, plain = (
        final_point(rule, problems.noisy_gradient(1), sign, steps, lr=tuned(rule, problems, steps, seed=0))
        for rule in (adagrad, sgd)
    )
    return ours[:, FEATURES // 2 :].square().mean(-1), plain[:, FEATURES // 2 :].square().mean(-1)


@experiment(
    "adagrad-learns-rare-features",
    decide=lambda m: any_of(
        {
            "a step sees one example": is_below(m["ratio_1"], LESS),
            "a step sees many examples": is_below(m["ratio_64"], LESS),
        }
    ),
)
def measure_rare_features(quick: bool) -> Quantities:
    """Compare AdaGrad with SGD on rare features, with one example per step and with many."""
    errors = {batch: rare_feature_errors(batch, QUICK if quick else N) for batch in BATCHES}
    quantities = {f"ratio_{batch}": mean(ours / plain) for batch, (ours, plain) in errors.items()}
    for batch, (ours, plain) in errors.items():
        quantities[f"adagrad_{batch}"] = mean(ours)
        quantities[f"sgd_{batch}"] = mean(plain)
    return quantities


@experiment("adagrad-shrinks-as-root-t", decide=lambda m: all_of(m["deviation"].effect <= ROUNDING))
def measure_root_t(quick: bool, rule: Rule = adagrad) -> Quantities:
    """Compare the steps of a rule on constant gradients with η / √t."""
    steps, lr = LONG // 10 if quick else LONG, 0.1
    size = torch.logspace(-3, 3, 7, dtype=torch.float64)
    lengths = updates(rule, size.expand(steps, 7), lr=lr, eps=0.0).abs()
    t = torch.arange(1, steps + 1, dtype=torch.float64)[:, None]
    deviation = float((lengths / (lr / t.sqrt()) - 1).abs().max())
    exponent = float(np.polyfit(t[:, 0].log().numpy(), lengths.log().mean(-1).numpy(), 1)[0])
    return {"deviation": exact(deviation, 7), "exponent": exact(exponent, 7)}


# In the first design AdaGrad was compared with momentum only. By this measure gradient descent at a constant learning
# rate "stalled" as well, for lack of momentum. The cost of a decaying learning rate shows against a constant one.
ARMS = ("tuned", "default", "noise")


@experiment(
    "adagrad-stalls",
    decide=lambda m: any_of(
        {
            "its learning rate is tuned": is_above(m["sgd_tuned"], BEHIND),
            "its learning rate is the default": is_above(m["sgd_default"], BEHIND),
            "gradients are noisy": is_above(m["sgd_noise"], BEHIND),
        }
    ),
)
def measure_stall(quick: bool) -> Quantities:
    """Compare AdaGrad with gradient descent and momentum: tuned, at default learning rates, and tuned with noise."""
    n = QUICK if quick else N
    noiseless, noisy = quadratics(n, D, CONDITION, seed=7), quadratics(n, D, CONDITION, seed=7, noise=NOISE)

    def arm_loss(rule: Rule, arm: str, **values: float) -> Tensor:
        problems, tuning_seed, seed = (noisy, 0, 1) if arm == "noise" else (noiseless, None, None)
        default = float(rule.hyperparameters["lr"])
        lr = default if arm == "default" else tuned(rule, problems, STEPS, tuning_seed, **values)
        return log_loss(problems, rule, STEPS, lr, seed, **values)

    ours = {arm: arm_loss(adagrad, arm) for arm in ARMS}
    return {
        f"{key}_{arm}": mean(ours[arm] - arm_loss(sgd, arm, **values))
        for key, values in (("sgd", {}), ("momentum", {"momentum": 0.9}))
        for arm in ARMS
    }
