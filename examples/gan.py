"""A GAN as a custom training loop.  gradprix race examples/gan.py:train --direction min"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import softplus


def energy_distance(generated: torch.Tensor, real: torch.Tensor) -> float:
    """Return the energy distance between two samples of images (Székely, doi:10.1016/j.jspi.2013.03.018)."""
    between = torch.cdist(generated, real).mean()
    within = torch.cdist(generated, generated).mean() + torch.cdist(real, real).mean()
    return float(2 * between - within)


def train(make_optimizer: Callable[..., Any], seed: int) -> Iterator[dict[str, float]]:
    images = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    training, valid, test = (images[i] for i in torch.randperm(len(images)).split([1_197, 300, 300]))
    generator = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.Sigmoid())
    discriminator = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    generator_optimizer = make_optimizer(generator.parameters())
    discriminator_optimizer = make_optimizer(discriminator.parameters())
    for _ in range(10):
        for real in training[torch.randperm(len(training))].split(64):
            generated = generator(torch.randn(len(real), 16))
            discriminator_optimizer.zero_grad()
            (softplus(discriminator(generated.detach())) + softplus(-discriminator(real))).mean().backward()
            discriminator_optimizer.step()
            generator_optimizer.zero_grad()
            softplus(-discriminator(generated)).mean().backward()
            generator_optimizer.step()
        with torch.no_grad():
            generated = generator(torch.randn(300, 16))
        yield {"valid": energy_distance(generated, valid), "test": energy_distance(generated, test)}
