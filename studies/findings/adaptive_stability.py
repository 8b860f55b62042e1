"""Adaptive edge of stability: the preconditioned sharpness of full-batch Adam (Cohen et al. 2022, arXiv:2207.14484)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from gradprix.claims.decisions import Decision, all_of, is_above, is_within
from gradprix.claims.estimates import Measured, geometric_mean
from gradprix.claims.network_training import CONSTANT, Training, make_trial, seeds
from gradprix.claims.registry import Quantities
from gradprix.show.figure import Chart
from gradprix.training import runtime_settings

from .figures import interval_rows
from .registry import experiment

N = 6
RATES = {0.9: (3e-3, 4e-3), 0.5: (7e-4, 1e-3)}
"""Learning rates by β₁ at which the preconditioned sharpness starts below its threshold and reaches it."""
KEYS = {beta1: f"{round(10 * beta1)}" for beta1 in RATES}
BETA2, EPS = 0.999, 1e-7
STEPS = 300
START = 10  # step at which the rise begins to be measured
LATE, QUICK_LATE = (150, 200, 250, 300), (300,)
"""Steps at which the preconditioned sharpness is said to be at its threshold."""
RANGE = (0.8, 1.25)  # range that counts as approximately 1
ROUNDS, MORE = 40, 15  # power iterations from a random direction, and from the direction found a few steps before

Parameters = dict[str, Tensor]


def tanh_mlp() -> nn.Module:
    """Build an MLP 64-64-64-10 with tanh.

    The curvature of a ReLU network jumps where a unit is active for few examples.
    """
    return nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return half the squared distance from one-hot targets.

    With cross-entropy the curvature falls as examples are learned.
    """
    return 0.5 * (outputs - (targets[:, None] == torch.arange(10)).to(outputs.dtype)).square().sum(-1).mean()


TASK = CONSTANT.change(name="digits, squared error", model=tanh_mlp, loss=squared_error, epochs=STEPS)


def threshold(lr: float, beta1: float) -> float:
    """Return the preconditioned sharpness above which Adam with frozen second moments is unstable on a quadratic."""
    return (2 + 2 * beta1) / ((1 - beta1) * lr)


def preconditioner_gains(training: Training, t: int, beta1: float) -> Parameters:
    """Return the factor by which Adam multiplies the average gradient after t steps, without the learning rate.

    Its inverse is the preconditioner of the paper, (1 − β₁ᵗ) (√(v / (1 − β₂ᵗ)) + ε).
    """
    rows = [training.stack.rule_state(row) for row in range(len(training.stack.rows))]
    second = {name: torch.stack([row[name]["v"] for row in rows]) for name in training.stack.parameters}
    correction = 1 - BETA2**t
    return {name: 1 / ((1 - beta1**t) * ((v / correction).sqrt() + EPS)) for name, v in second.items()}


def sharpness(training: Training, gains: Parameters, direction: Parameters | None) -> tuple[Tensor, Parameters]:
    """Return the largest eigenvalue of √P H √P for each model and its eigenvector, by power iteration.

    Args:
        training: the models, with their current weights; H is the Hessian of the loss on all training examples.
        gains: the diagonal of P for each parameter.
        direction: initial vector, as returned by an earlier call; random if None.
    """
    stack, model = training.stack, training.task.network(0)
    inputs, targets = stack.data.load(stack.data.train)
    generator = torch.Generator().manual_seed(0)
    vectors = direction or {name: torch.randn(x.shape, generator=generator) for name, x in stack.parameters.items()}
    roots = {name: gain.sqrt() for name, gain in gains.items()}

    def hessian_product(point: Parameters, vector: Parameters, x: Tensor, y: Tensor) -> Parameters:
        gradient = grad(lambda weights: training.task.loss(functional_call(model, weights, (x,)), y))
        product: Parameters = jvp(gradient, (point,), (vector,))[1]
        return product

    for _ in range(ROUNDS if direction is None else MORE):
        scaled = {name: roots[name] * x for name, x in vectors.items()}
        with catch_warnings(), runtime_settings():
            simplefilter("ignore", DeprecationWarning)  # raised inside torch
            products = vmap(hessian_product)(stack.parameters, scaled, inputs, targets)
        products = {name: roots[name] * x for name, x in products.items()}
        size = torch.stack([x.flatten(1).square().sum(1) for x in products.values()]).sum(0).sqrt()
        vectors = {name: x / size.view(-1, *[1] * (x.dim() - 1)) for name, x in products.items()}
    return size[: training.count].double(), vectors


def decide(m: Quantities) -> Decision:
    """Return the verdict: the preconditioned sharpness rises to its threshold, and stays there."""
    at_edge = [is_within(m[f"late_{key}"], *RANGE) for key in KEYS.values()]
    return all_of(*at_edge, *(is_above(m[f"rise_{key}"], 1) for key in KEYS.values()))


def draw(m: Quantities) -> Chart:
    """Draw the preconditioned sharpness over its threshold late in training."""
    rows = {f"β₁ = {beta1}": m[f"late_{key}"] for beta1, key in KEYS.items()}
    title = "preconditioned sharpness over its threshold"
    return interval_rows("adam-trains-at-its-stability-edge", title, rows, 1.0)


@dataclass(frozen=True)
class Curves:
    """Quantities of a stack of runs at some steps, `[steps, seeds, rates]`.

    Args:
        relative: the preconditioned sharpness over its threshold.
        sharpness: largest eigenvalue of the Hessian.
        loss: training loss before the step.
    """

    relative: Tensor
    sharpness: Tensor
    loss: Tensor


def train(beta1: float, run_seeds: range, steps: Sequence[int]) -> Curves:
    """Train with full batches at each of the learning rates, and measure the curvature after the given steps."""
    rates = RATES[beta1]
    pairs = [(seed, lr) for seed in run_seeds for lr in rates]
    trials = [make_trial(TASK, "adam", lr, seed, beta1=beta1, beta2=BETA2, eps=EPS) for seed, lr in pairs]
    training = Training(TASK, [replace(trial, batch_size=0) for trial in trials])
    limits = torch.tensor([threshold(lr, beta1) for _, lr in pairs], dtype=torch.float64)
    directions: list[Parameters | None] = [None, None]
    rows = []
    for t, loss in training.steps():
        if t in steps:
            gains = preconditioner_gains(training, t, beta1)
            size, directions[0] = sharpness(training, gains, directions[0])
            raw, directions[1] = sharpness(training, {k: torch.ones_like(x) for k, x in gains.items()}, directions[1])
            rows.append([x.view(-1, len(rates)) for x in (size / limits, raw, loss.double())])
    return Curves(*(torch.stack(curve) for curve in zip(*rows, strict=True)))


@experiment("adam-trains-at-its-stability-edge", decide, draw=draw)
def measure(quick: bool) -> Quantities:
    """Measure the preconditioned sharpness over its threshold at two values of β₁, early and late in training."""
    results: dict[str, Measured] = {}
    for beta1, key in KEYS.items():
        curves = train(beta1, seeds(quick, N), (START, *(QUICK_LATE if quick else LATE)))
        first, late = curves.relative[0].log(), curves.relative[1:].log()
        results |= {
            f"late_{key}": geometric_mean(late.mean((0, 2)).numpy()),
            f"rise_{key}": geometric_mean((late.mean(0) - first).mean(1).numpy()),
            f"sharpness_{key}": geometric_mean((curves.sharpness[-1] / curves.sharpness[0]).log().mean(1).numpy()),
            f"loss_{key}": geometric_mean((curves.loss[0] / curves.loss[-1]).log().mean(1).numpy()),
        }
    return results
