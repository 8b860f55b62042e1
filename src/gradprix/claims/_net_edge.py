"""Stability edge of gradient descent on a network: approximately 2 / sharpness, as on a quadratic."""

from math import sqrt
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor
from torch.func import functional_call, grad, jvp, vmap

from ._claim import Claim, Finding, Measured, Verdict, mean
from ._network_experiment import STEADY, Training, seeds, times, trial

ALPHA = 0.05
N = 8
NEAR = (0.8, 1.25)
"""Range that counts as approximately 1: a quarter more, or as much less."""
CALM, CALM_STEPS = 0.1, 300
"""Learning rate and number of steps after which the sharpness is constant, at half of 2 / lr; the experiment starts
there."""
SHARES = (0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.35, 1.5)
"""Learning rates tried from there, over 2 / sharpness."""
TRIED = 80
"""Steps at each learning rate: at 1.05 an overshoot grows by a tenth per step, 2,000-fold in total."""
FAST = (0.2, 0.4)
"""Learning rates at which the sharpness would rise above 2 / lr, from the start."""
EDGE = range(100, 201, 10)
"""Steps at which the sharpness is measured there: after its rise, and before it falls as the examples are learnt."""
ROUNDS, MORE = 40, 8
"""Hessian-vector products from a random direction, and from the direction found a few steps before."""

Stack = dict[str, Tensor]


def sharpest(training: Training, direction: Stack | None = None) -> tuple[Tensor, Stack]:
    """Return the largest curvature of each network's training loss and its direction, by power iteration.

    Args:
        training: the networks.
        direction: initial direction; random if None.
    """
    trainer, model = training.trainer, training.task.network(0)
    inputs, targets = trainer.batch(trainer.train)
    generator = torch.Generator().manual_seed(0)
    rounds = ROUNDS if direction is None else MORE
    vectors = direction or {name: torch.randn(x.shape, generator=generator) for name, x in trainer.leaves.items()}

    def curved(point: Stack, along: Stack, x: Tensor, y: Tensor) -> Stack:
        gradient = grad(lambda weights: training.task.loss(functional_call(model, weights, (x,)), y))
        product: Stack = jvp(gradient, (point,), (along,))[1]
        return product

    for _ in range(rounds):
        with catch_warnings():
            simplefilter("ignore", DeprecationWarning)  # raised inside torch
            vectors = vmap(curved)(trainer.leaves, vectors, inputs, targets)
        size = torch.stack([x.flatten(1).square().sum(1) for x in vectors.values()]).sum(0).sqrt()
        vectors = {name: x / size.view(-1, *[1] * (x.dim() - 1)) for name, x in vectors.items()}
    return size[: training.count].double(), vectors


def _thresholds(run_seeds: range) -> list[float]:
    """Return for each seed the learning rate, over 2 / sharpness, from which on some step raises the training loss."""
    calm = STEADY.change(epochs=CALM_STEPS)
    before = Training(calm, [trial(calm, "gd", CALM, seed) for seed in run_seeds])
    for _ in before.steps():
        pass
    edge = 2 / sharpest(before)[0]
    task = STEADY.change(epochs=TRIED + 1)
    runs = [(i, share) for i in range(len(run_seeds)) for share in SHARES]
    after = Training(task, [trial(task, "gd", share * float(edge[i]), run_seeds[i]) for i, share in runs])
    rows = torch.tensor([i for i, _ in runs] + [len(run_seeds) - 1])  # a stack has a spare last row
    after.trainer.leaves = {name: x[rows].clone() for name, x in before.trainer.leaves.items()}
    losses = torch.stack([loss for _, loss in after.steps()])
    return [first_rise(rises) for rises in (losses.diff(dim=0) > 0).any(0).view(-1, len(SHARES)).tolist()]


def first_rise(rises: list[bool]) -> float:
    """Return the geometric midpoint of the last share without a rise and the first with one, or an end point."""
    if True not in rises:
        return SHARES[-1]
    i = rises.index(True)
    return sqrt(SHARES[i] * SHARES[max(0, i - 1)])


def _measure_edge(run_seeds: range) -> tuple[list[float], list[float]]:
    """Return sharpness × rate / 2 and the log ratio of first to last loss, both for each seed."""
    task = STEADY.change(epochs=EDGE[-1])
    training = Training(task, [trial(task, "gd", lr, seed) for seed in run_seeds for lr in FAST])
    rates, direction, products, losses = torch.tensor(FAST * len(run_seeds)), None, [], []
    for t, loss in training.steps():
        if t in EDGE:
            size, direction = sharpest(training, direction)
            products.append(size * rates / 2)
            losses.append(loss)
    fallen = (losses[0] / losses[-1]).log().view(-1, len(FAST)).mean(1)
    return torch.stack(products).mean(0).view(-1, len(FAST)).mean(1).tolist(), fallen.tolist()


def overshoots(threshold: Measured, edge: Measured, fallen: Measured) -> Finding:
    """Return the verdict from the position of the stability edge, compared with that of a quadratic.

    Args:
        threshold: learning rate from which on updates raise the loss, over 2 / sharpness.
        edge: sharpness × rate / 2 at a constant learning rate, after the rise of the sharpness.
        fallen: factor by which the loss decreases there.
    """
    within = [NEAR[0] < ratio.ci95[0] and ratio.ci95[1] < NEAR[1] for ratio in (threshold, edge)]
    outside = [ratio.ci95[1] < NEAR[0] or NEAR[1] < ratio.ci95[0] for ratio in (threshold, edge)]
    says = (
        f"From a digits network of level sharpness λ, updates begin to raise the loss at {threshold.text()} times "
        f"2/λ. At a constant rate from the start the sharpness rises until rate × λ / 2 is {edge.text()}, and there "
        f"the loss goes on falling, {fallen.text('.1f')} times in {EDGE[-1] - EDGE[0]} steps."
    )
    verdict: Verdict = "holds only if" if all(within) else "does not hold" if any(outside) else "not settled"
    condition = "the rate is above about 2/λ" if all(within) else ""
    return Finding(verdict, says, [threshold, edge, fallen], condition)


def _overshoots(quick: bool) -> Finding:
    run_seeds = seeds(quick, N)
    edge, fallen = _measure_edge(run_seeds)
    return overshoots(
        mean("rate from which on an update raises the loss, over 2 / sharpness", _thresholds(run_seeds)),
        mean(f"sharpness × rate / 2 after {EDGE[0]} to {EDGE[-1]} steps", edge),
        times("how many times smaller the training loss becomes over these steps", fallen),
    )


CLAIMS = (
    Claim(
        id="large-updates-overshoot-on-a-network",
        account="Gradient descent on the whole data set makes large updates, which overshoot the minimum.",
        prediction="On digits as on a bowl: begun where the sharpness λ (the largest curvature of the training loss) "
        "is level, updates lower the loss at each step below a rate of 2/λ and raise it above. At a constant rate λ "
        "rises to 2 / rate, and stays about there.",
        decides=f"Over {N} seeds, the rate at which updates begin to raise the loss, over 2/λ, and rate × λ / 2 after "
        f"{EDGE[0]} to {EDGE[-1]} steps. Holds only if the rate is above 2/λ, when both 95 % intervals are within "
        f"{NEAR[0]} to {NEAR[1]}; does not hold if one is wholly without.",
        run=_overshoots,
        on="networks",
        source="Cohen et al. 2021, arXiv:2103.00065",
    ),
)
