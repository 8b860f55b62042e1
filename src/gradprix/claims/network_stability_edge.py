"""Stability edge of gradient descent on a network: approximately 2 / sharpness, as on a quadratic."""

from math import sqrt
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor
from torch.func import functional_call, grad, jvp, vmap

from .claim import experiment
from .decisions import all_of, is_within
from .estimates import geometric_mean, mean
from .network_training import CONSTANT, Training, make_trial, seeds
from .registry import Quantities

N = 8
RANGE = (0.8, 1.25)  # range that counts as approximately 1
CALM, CALM_STEPS = 0.1, 300
"""Learning rate and number of steps of a first phase, after which the sharpness is constant, at half of 2 / lr."""
SHARES = (0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.35, 1.5)  # learning rates after this phase, over 2 / sharpness
STEPS = 80  # steps at each learning rate: at 1.05 an overshoot grows by a tenth per step, 2,000-fold in total
FAST = (0.2, 0.4)  # learning rates from initialization on at which the sharpness would rise above 2 / lr
EDGE = range(100, 201, 10)
"""Steps at which the sharpness is measured with these: after it has risen, and before it falls as the examples are
learned."""
ROUNDS, MORE = 40, 8  # iterations from a random direction, and from the direction found a few steps before

Parameters = dict[str, Tensor]


def sharpness(training: Training, direction: Parameters | None = None) -> tuple[Tensor, Parameters]:
    """Return the largest curvature of each model's training loss and its direction, by power iteration.

    Args:
        training: the models, with their current weights.
        direction: initial direction, as returned by an earlier call; random if None.
    """
    stack, model = training.stack, training.task.network(0)
    inputs, targets = stack.data.load(stack.data.train)
    generator = torch.Generator().manual_seed(0)
    rounds = ROUNDS if direction is None else MORE
    vectors = direction or {name: torch.randn(x.shape, generator=generator) for name, x in stack.parameters.items()}

    def hessian_product(point: Parameters, vector: Parameters, x: Tensor, y: Tensor) -> Parameters:
        gradient = grad(lambda weights: training.task.loss(functional_call(model, weights, (x,)), y))
        product: Parameters = jvp(gradient, (point,), (vector,))[1]
        return product

    for _ in range(rounds):
        with catch_warnings():
            simplefilter("ignore", DeprecationWarning)  # raised inside torch
            vectors = vmap(hessian_product)(stack.parameters, vectors, inputs, targets)
        size = torch.stack([x.flatten(1).square().sum(1) for x in vectors.values()]).sum(0).sqrt()
        vectors = {name: x / size.view(-1, *[1] * (x.dim() - 1)) for name, x in vectors.items()}
    return size[: training.count].double(), vectors


def _measure_thresholds(run_seeds: range) -> list[float]:
    """Return the smallest learning rate at which a step raises the training loss, over 2 / sharpness, for each seed.

    Each learning rate is applied to a network that was trained until its sharpness is constant.
    """
    calm = CONSTANT.change(epochs=CALM_STEPS)
    before = Training(calm, [make_trial(calm, "gd", CALM, seed) for seed in run_seeds])
    before.run()
    edge = 2 / sharpness(before)[0]
    task = CONSTANT.change(epochs=STEPS + 1)
    runs = [(i, share) for i in range(len(run_seeds)) for share in SHARES]
    after = Training(task, [make_trial(task, "gd", share * float(edge[i]), run_seeds[i]) for i, share in runs])
    # The last rows pad the stack: they are copies of the last trial.
    rows = torch.tensor([i for i, _ in runs] + [len(run_seeds) - 1] * (len(after.stack.rows) - len(runs)))
    after.stack.parameters = {name: x[rows].clone() for name, x in before.stack.parameters.items()}
    losses = torch.stack([loss for _, loss in after.steps()])
    return [first_rise(rises) for rises in (losses.diff(dim=0) > 0).any(0).view(-1, len(SHARES)).tolist()]


def first_rise(rises: list[bool]) -> float:
    """Return the geometric mean of the first element of `SHARES` with a rise and the element before it.

    Returns the first or last element if the first has a rise or none has.

    Args:
        rises: for each element of `SHARES`, True if a step raised the training loss.
    """
    if True not in rises:
        return SHARES[-1]
    i = rises.index(True)
    return sqrt(SHARES[i] * SHARES[max(0, i - 1)])


def _measure_edge(run_seeds: range) -> tuple[list[float], list[float]]:
    """Return two lists with one number per seed, measured at constant learning rates.

    Returns:
        The mean of sharpness × learning rate / 2, and the mean log ratio of first to last loss.
    """
    task = CONSTANT.change(epochs=EDGE[-1])
    training = Training(task, [make_trial(task, "gd", lr, seed) for seed in run_seeds for lr in FAST])
    rates, direction, products, losses = torch.tensor(FAST * len(run_seeds)), None, [], []
    for t, loss in training.steps():
        if t in EDGE:
            size, direction = sharpness(training, direction)
            products.append(size * rates / 2)
            losses.append(loss)
    decrease = (losses[0] / losses[-1]).log().view(-1, len(FAST)).mean(1)
    return torch.stack(products).mean(0).view(-1, len(FAST)).mean(1).tolist(), decrease.tolist()


@experiment(
    "large-updates-overshoot-on-a-network",
    decide=lambda m: all_of(
        is_within(m["threshold"], *RANGE),
        is_within(m["edge"], *RANGE),
        condition="the learning rate is above about 2/λ",
    ),
)
def measure(quick: bool) -> Quantities:
    """Measure the stability edge from a constant sharpness on, and the sharpness at constant learning rates."""
    run_seeds = seeds(quick, N)
    edge, decrease = _measure_edge(run_seeds)
    return {"threshold": mean(_measure_thresholds(run_seeds)), "edge": mean(edge), "decrease": geometric_mean(decrease)}
