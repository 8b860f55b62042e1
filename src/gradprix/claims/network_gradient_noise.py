"""Gradient noise of batches of several sizes on a real network."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from gradprix.training import runtime_settings

from .claim import experiment
from .decisions import all_of, is_within
from .estimates import mean
from .network_training import CONSTANT, Training, make_trial, seeds
from .registry import Quantities

N = 8
SIZES = (1, 8, 32, 128, 512, 768)  # batch sizes; there are 1,078 training examples
DRAWS, QUICK_DRAWS = 300, 100  # number of batches drawn of each size
EFFECT = 0.05  # tolerated deviation of the log-log slope from −1
RATE = 0.1
"""Learning rate of the epoch before the measurement. It hardly matters: the noise depends on the weights alone."""


@cache
def gradient_noise(quick: bool) -> list[dict[int, float]]:
    """Return the mean squared distance between a batch's gradient and the full gradient by batch size, for each seed.

    The network is the one of `digits` after an epoch of mini-batches. Batches are drawn without replacement, as in
    training.
    """
    task = CONSTANT.change(epochs=1)
    run_seeds = seeds(quick, N)
    training = Training(task, [make_trial(task, "minibatch", RATE, seed) for seed in run_seeds])
    training.run()
    draws = QUICK_DRAWS if quick else DRAWS
    return [_batch_noise(training.weights(row), seed, draws) for row, seed in enumerate(run_seeds)]


def _batch_noise(weights: dict[str, Tensor], seed: int, draws: int) -> dict[int, float]:
    model, generator = CONSTANT.network(seed), torch.Generator().manual_seed(seed)
    inputs, targets = CONSTANT.loaded.take(CONSTANT.loaded.split(seed).train)

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return CONSTANT.loss(functional_call(model, parameters, (x,)), y)

    full_gradient = grad(loss)(weights, inputs, targets)
    noise_by_size = {}
    for size in SIZES:
        index = torch.stack([torch.randperm(len(targets), generator=generator)[:size] for _ in range(draws)])
        total = 0.0
        for part in torch.split(index, 50):  # limits memory
            with runtime_settings():
                each = vmap(grad(loss), (None, 0, 0))(weights, inputs[part], targets[part])
            total += sum(float((each[name] - g).double().square().sum()) for name, g in full_gradient.items())
        noise_by_size[size] = total / draws
    return noise_by_size


def log_log_slope(noise_by_size: Mapping[int, float], examples: int) -> float:
    """Return the slope of the noise against the batch size on logarithmic axes.

    The noise is first divided by (examples − size) / (examples − 1), the factor for drawing without replacement.

    Args:
        noise_by_size: the noise by batch size.
        examples: number of examples from which batches are drawn.
    """
    sizes = np.array(list(noise_by_size))
    corrected = np.array(list(noise_by_size.values())) * (examples - 1) / (examples - sizes)
    return float(np.polyfit(np.log(sizes), np.log(corrected), 1)[0])


@experiment(
    "gradient-noise-falls-as-one-over-batch", decide=lambda m: all_of(is_within(m["slope"], -1 - EFFECT, -1 + EFFECT))
)
def measure(quick: bool) -> Quantities:
    """Fit the slope of the noise against the batch size for each seed."""
    noises, examples, last = gradient_noise(quick), len(CONSTANT.loaded.split(0).train), SIZES[-1]
    return {
        "slope": mean([log_log_slope(each, examples) for each in noises]),
        "last": mean([each[last] * last / each[1] for each in noises]),
    }
