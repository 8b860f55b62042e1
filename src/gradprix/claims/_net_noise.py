"""Gradient noise of batches of several sizes on a real network."""

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
"""Batch sizes; there are 1,078 training examples."""
DRAWS = 300
"""Batches drawn of each size."""
EFFECT = 0.05
"""Tolerated deviation of the log-log slope from −1."""
RATE = 0.1
"""Learning rate of the epoch before the measurement; the noise depends on the position, not on the path to it."""


@cache
def noise(quick: bool) -> list[dict[int, float]]:
    """Return for each seed the mean squared distance of a batch's gradient from the full gradient, by batch size.

    The network is that of digits after an epoch of mini-batches; batches are drawn without replacement, as in training.
    """
    task = STEADY.change(epochs=1)
    run_seeds = seeds(quick, N)
    training = Training(task, [trial(task, "minibatch", RATE, seed) for seed in run_seeds])
    for _ in training.steps():
        pass
    return [_batch_noise(training.weights(row), seed, 100 if quick else DRAWS) for row, seed in enumerate(run_seeds)]


def _batch_noise(weights: Mapping[str, torch.Tensor], seed: int, draws: int) -> dict[int, float]:
    model, generator = STEADY.network(seed), torch.Generator().manual_seed(seed)
    inputs, targets = STEADY.loaded.take(STEADY.loaded.split(seed).train)

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return STEADY.loss(functional_call(model, parameters, (x,)), y)

    full_gradient = grad(loss)(dict(weights), inputs, targets)
    noise_by_size = {}
    for size in SIZES:
        index = torch.stack([torch.randperm(len(targets), generator=generator)[:size] for _ in range(draws)])
        total = 0.0
        for part in torch.split(index, 50):  # limits memory
            with quiet():
                each = vmap(grad(loss), (None, 0, 0))(dict(weights), inputs[part], targets[part])
            total += sum(float((each[name] - g).double().square().sum()) for name, g in full_gradient.items())
        noise_by_size[size] = total / draws
    return noise_by_size


def slope(noise_by_size: Mapping[int, float], examples: int) -> float:
    """Return the log-log slope of the noise against the batch size.

    The finite-sample factor of draws without replacement, (examples − size) / (examples − 1), is removed first.

    Args:
        noise_by_size: the noise by batch size.
        examples: number of examples to draw from.
    """
    sizes = np.array(list(noise_by_size))
    corrected = np.array(list(noise_by_size.values())) * (examples - 1) / (examples - sizes)
    return float(np.polyfit(np.log(sizes), np.log(corrected), 1)[0])


def falls(slopes: Measured, factor: Measured) -> Finding:
    """Return the verdict on the scaling of the noise from its slope."""
    low, high = slopes.ci95
    inside, outside = low > -1 - EFFECT and high < -1 + EFFECT, low > -1 + EFFECT or high < -1 - EFFECT
    says = (
        f"The squared noise of a gradient falls as the batch to the power {slopes.text('.3f')}, and a batch of "
        f"{SIZES[-1]} out of all, drawn without putting back, has {factor.text()} of what 1/batch says."
    )
    verdict: Verdict = "holds" if inside else "does not hold" if outside else "not settled"
    return Finding(verdict, says, [slopes, factor])


def _falls(quick: bool) -> Finding:
    noises = noise(quick)
    examples = len(STEADY.loaded.split(0).train)
    slopes: Sequence[float] = [slope(each, examples) for each in noises]
    last = [each[SIZES[-1]] * SIZES[-1] / each[1] for each in noises]
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
