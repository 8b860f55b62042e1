"""Two networks against each other, in a loop of one's own.  gradprix race examples/gan.py:train --direction min"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import softplus


def distance(made: torch.Tensor, real: torch.Tensor) -> float:
    """How far two clouds of images are apart: Székely's energy distance, doi:10.1016/j.jspi.2013.03.018."""
    a, b = torch.cdist(made, real).mean(), torch.cdist(made, made).mean() + torch.cdist(real, real).mean()
    return float(2 * a - b)


def train(make_optimizer: Callable[..., Any], seed: int) -> Iterator[dict[str, float]]:
    images = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    learn, valid, test = (images[i] for i in torch.randperm(len(images)).split([1_197, 300, 300]))
    forger = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.Sigmoid())
    critic = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    forging, judging = make_optimizer(forger.parameters()), make_optimizer(critic.parameters())
    for _ in range(10):
        for real in learn[torch.randperm(len(learn))].split(64):
            made = forger(torch.randn(len(real), 16))
            judging.zero_grad()
            (softplus(critic(made.detach())) + softplus(-critic(real))).mean().backward()
            judging.step()
            forging.zero_grad()
            softplus(-critic(made)).mean().backward()
            forging.step()
        with torch.no_grad():
            made = forger(torch.randn(300, 16))
        yield {"valid": distance(made, valid), "test": distance(made, test)}
