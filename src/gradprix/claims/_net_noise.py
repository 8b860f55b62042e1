"""How far the gradient of a few examples is from that of all of them, on a real network."""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import torch
from torch.func import functional_call, grad, vmap

from gradprix.training.model_stack import quiet

from ._claim import Claim, Finding, Measured, Verdict, mean
from ._network_experiment import STEADY, Training, seeds, trial

ALPHA = 0.05
N = 8
SIZES = (1, 8, 32, 128, 512, 768)
"""Examples in a batch; there are 1,078 to train on."""
DRAWS = 300
"""Batches drawn of each size."""
EFFECT = 0.05
"""The slope of the logarithms may be so far from −1."""
RATE = 0.1
"""At which a network is trained for a pass beforehand: noise is a matter of where it is, not of how it came there."""


@cache
def noise(quick: bool) -> list[dict[int, float]]:
    """For each seed, the mean squared distance of a batch's gradient from that of all, for each size of batch.

    The network is that of digits after a pass in mini-batches; a batch is drawn without putting back, as in training.
    """
    task = STEADY.change(epochs=1)
    known = seeds(quick, N)
    training = Training(task, [trial(task, "minibatch", RATE, seed) for seed in known])
    for _ in training.steps():
        pass
    return [_of(training.weights(row), seed, 100 if quick else DRAWS) for row, seed in enumerate(known)]


def _of(weights: Mapping[str, torch.Tensor], seed: int, draws: int) -> dict[int, float]:
    model, luck = STEADY.network(seed), torch.Generator().manual_seed(seed)
    inputs, targets = STEADY.loaded.take(STEADY.loaded.split(seed).train)

    def loss(at: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return STEADY.loss(functional_call(model, at, (x,)), y)

    every = grad(loss)(dict(weights), inputs, targets)
    found = {}
    for size in SIZES:
        index = torch.stack([torch.randperm(len(targets), generator=luck)[:size] for _ in range(draws)])
        total = 0.0
        for part in torch.split(index, 50):  # as many gradients as fit in memory with ease
            with quiet():
                each = vmap(grad(loss), (None, 0, 0))(dict(weights), inputs[part], targets[part])
            total += sum(float((each[name] - g).double().square().sum()) for name, g in every.items())
        found[size] = total / draws
    return found


def slope(found: Mapping[int, float], examples: int) -> float:
    """Of the logarithm of the noise against that of the size of the batch.

    What is drawn without putting back varies less by (examples − size) / (examples − 1), which is taken out first.

    Args:
        found: the noise of each size.
        examples: how many are drawn from.
    """
    sizes = np.array(list(found))
    corrected = np.array(list(found.values())) * (examples - 1) / (examples - sizes)
    return float(np.polyfit(np.log(sizes), np.log(corrected), 1)[0])


def falls(slopes: Measured, factor: Measured) -> Finding:
    """The law of noise, judged by its slope."""
    low, high = slopes.ci95
    inside, outside = low > -1 - EFFECT and high < -1 + EFFECT, low > -1 + EFFECT or high < -1 - EFFECT
    says = (
        f"The squared noise of a gradient falls as the batch to the power {slopes.said('.3f')}, and a batch of "
        f"{SIZES[-1]} out of all, drawn without putting back, has {factor.said()} of what 1/batch says."
    )
    verdict: Verdict = "holds" if inside else "does not hold" if outside else "not settled"
    return Finding(verdict, says, [slopes, factor])


def _falls(quick: bool) -> Finding:
    found = noise(quick)
    examples = len(STEADY.loaded.split(0).train)
    slopes: Sequence[float] = [slope(each, examples) for each in found]
    last = [each[SIZES[-1]] * SIZES[-1] / each[1] for each in found]
    return falls(
        mean("slope of ln(squared gradient noise, finite-sample factor taken out) against ln(batch)", slopes),
        mean(f"squared noise of {SIZES[-1]} examples × {SIZES[-1]} over that of one", last),
    )


CLAIMS = (
    Claim(
        id="gradient-noise-falls-as-one-over-batch",
        account="Batches of a few examples reduce the noise of single ones.",
        prediction="On a digits network the mean squared distance of a batch's gradient from that of all examples "
        "falls as 1 / batch, times (examples − batch) / (examples − 1) where a batch is drawn without putting back.",
        decides=f"Holds if the 95 % interval of the slope of the logarithms over {N} seeds, that factor taken out, is "
        f"within {EFFECT} of −1; does not hold if it is wholly without.",
        run=_falls,
        on="networks",
        source="McCandlish et al. 2018, arXiv:1812.06162",
    ),
)
