"""Where gradient descent overshoots on a network: at a rate of 2 over the sharpness, as on a bowl, approximately."""

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
"""What counts as approximately 1: a quarter more, or as much less."""
CALM, CALM_STEPS = 0.1, 300
"""A rate and a number of steps after which the sharpness is level at half of 2 / rate: what follows starts there."""
SHARES = (0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.35, 1.5)
"""Rates tried from there, over 2 / sharpness."""
TRIED = 80
"""Steps at each of them: at 1.05 what overshoots grows by a tenth each step, 2,000 times in all."""
FAST = (0.2, 0.4)
"""Rates at which the sharpness would rise past 2 / rate, from the start."""
EDGE = range(100, 201, 10)
"""Steps at which it is looked at there: when it has come up, and before it falls as the examples are learnt."""
ROUNDS, MORE = 40, 8
"""Products with the Hessian from a random direction, and from the last one found a few steps before."""

Stack = dict[str, Tensor]


def sharpest(training: Training, direction: Stack | None = None) -> tuple[Tensor, Stack]:
    """The largest curvature of each network's training loss and its direction, by power iteration.

    Args:
        training: the networks.
        direction: where to begin; at random when None.
    """
    lane, model = training.lane, training.task.network(0)
    inputs, targets = lane.batch(lane.train)
    luck = torch.Generator().manual_seed(0)
    rounds = ROUNDS if direction is None else MORE
    found = direction or {name: torch.randn(x.shape, generator=luck) for name, x in lane.leaves.items()}

    def curved(at: Stack, along: Stack, x: Tensor, y: Tensor) -> Stack:
        slope = grad(lambda weights: training.task.loss(functional_call(model, weights, (x,)), y))
        product: Stack = jvp(slope, (at,), (along,))[1]
        return product

    for _ in range(rounds):
        with catch_warnings():
            simplefilter("ignore", DeprecationWarning)  # torch's, about a part of its own
            found = vmap(curved)(lane.leaves, found, inputs, targets)
        size = torch.stack([x.flatten(1).square().sum(1) for x in found.values()]).sum(0).sqrt()
        found = {name: x / size.view(-1, *[1] * (x.dim() - 1)) for name, x in found.items()}
    return size[: training.count].double(), found


def _thresholds(known: range) -> list[float]:
    """For each seed the rate, over 2 / sharpness, from which on some step raises the training loss."""
    calm = STEADY.change(epochs=CALM_STEPS)
    before = Training(calm, [trial(calm, "gd", CALM, seed) for seed in known])
    for _ in before.steps():
        pass
    edge = 2 / sharpest(before)[0]
    task = STEADY.change(epochs=TRIED + 1)
    each = [(i, share) for i in range(len(known)) for share in SHARES]
    after = Training(task, [trial(task, "gd", share * float(edge[i]), known[i]) for i, share in each])
    rows = torch.tensor([i for i, _ in each] + [len(known) - 1])  # a stack has one row to spare
    after.lane.leaves = {name: x[rows].clone() for name, x in before.lane.leaves.items()}
    losses = torch.stack([loss for _, loss in after.steps()])
    return [first_rise(rises) for rises in (losses.diff(dim=0) > 0).any(0).view(-1, len(SHARES)).tolist()]


def first_rise(rises: list[bool]) -> float:
    """The share midway, by ratio, between the last without a rise and the first with one; an end if there is none."""
    if True not in rises:
        return SHARES[-1]
    i = rises.index(True)
    return sqrt(SHARES[i] * SHARES[max(0, i - 1)])


def _at_the_edge(known: range) -> tuple[list[float], list[float]]:
    """For each seed, sharpness × rate / 2 over the looks and rates, and the loss at first over that at last (ln)."""
    task = STEADY.change(epochs=EDGE[-1])
    training = Training(task, [trial(task, "gd", lr, seed) for seed in known for lr in FAST])
    rates, direction, seen, losses = torch.tensor(FAST * len(known)), None, [], []
    for t, loss in training.steps():
        if t in EDGE:
            size, direction = sharpest(training, direction)
            seen.append(size * rates / 2)
            losses.append(loss)
    fallen = (losses[0] / losses[-1]).log().view(-1, len(FAST)).mean(1)
    return torch.stack(seen).mean(0).view(-1, len(FAST)).mean(1).tolist(), fallen.tolist()


def overshoots(threshold: Measured, edge: Measured, fallen: Measured) -> Finding:
    """The edge, judged by whether it is where a bowl has it.

    Args:
        threshold: the rate from which on updates raise the loss, over 2 / sharpness.
        edge: sharpness × rate / 2 where the rate is kept and the sharpness rises.
        fallen: how many times smaller the loss becomes there.
    """
    near = [NEAR[0] < found.ci95[0] and found.ci95[1] < NEAR[1] for found in (threshold, edge)]
    off = [found.ci95[1] < NEAR[0] or NEAR[1] < found.ci95[0] for found in (threshold, edge)]
    says = (
        f"From a digits network of level sharpness λ, updates begin to raise the loss at {threshold.said()} times "
        f"2/λ. At a constant rate from the start the sharpness rises until rate × λ / 2 is {edge.said()}, and there "
        f"the loss goes on falling, {fallen.said('.1f')} times in {EDGE[-1] - EDGE[0]} steps."
    )
    verdict: Verdict = "holds only if" if all(near) else "does not hold" if any(off) else "not settled"
    condition = "the rate is above about 2/λ" if all(near) else ""
    return Finding(verdict, says, [threshold, edge, fallen], condition)


def _overshoots(quick: bool) -> Finding:
    known = seeds(quick, N)
    edge, fallen = _at_the_edge(known)
    return overshoots(
        mean("rate from which on an update raises the loss, over 2 / sharpness", _thresholds(known)),
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
