"""A training loop of your own, for anything more complex than a task: two networks, rewards, a trainer.

Race it with:  gradprix race FILE:train --direction max

Each run is one call of `train` in a process of its own, so keep it short: minutes, not hours.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from sklearn.datasets import load_wine
from torch import nn


def train(make_optimizer: Callable[..., Any], seed: int) -> Iterator[dict[str, float]]:
    """Train a network once.

    The random numbers of torch, NumPy and Python are already seeded. `make_optimizer(parameters)` returns the optimizer
    to race, with the trial's learning rate: call it where the code created its optimizer before. It may be called more
    than once, as for the two networks of a GAN.
    """
    wine = load_wine()
    inputs = torch.tensor(wine.data, dtype=torch.float32)
    inputs, targets = (inputs - inputs.mean(0)) / inputs.std(0), torch.tensor(wine.target)
    training_rows, valid, test = torch.randperm(len(targets)).split([106, 36, 36])

    model = nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 3))
    optimizer = make_optimizer(model.parameters())
    for _ in range(20):
        for batch in training_rows[torch.randperm(len(training_rows))].split(16):
            loss = nn.functional.cross_entropy(model(inputs[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            is_correct = (model(inputs).argmax(1) == targets).double()
        # "valid" is used to tune learning rates, "test" for the final comparison.
        yield {"train": loss.item(), "valid": is_correct[valid].mean().item(), "test": is_correct[test].mean().item()}
