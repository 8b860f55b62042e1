"""A GAN as a custom training loop.

gradprix race examples/gan.py:train --direction min
"""

from collections.abc import Callable, Iterator
from typing import Any

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import softplus

import gradprix as gp


def energy_distance(generated: torch.Tensor, real: torch.Tensor) -> float:
    """Return the energy distance between two samples of images.

    Székely, doi:10.1016/j.jspi.2013.03.018.
    """
    between = torch.cdist(generated, real).mean()
    within = (
        torch.cdist(generated, generated).mean() + torch.cdist(real, real).mean()
    )
    return float(2 * between - within)


def fit(
    make_optimizer: Callable[..., Any], training: torch.Tensor
) -> Iterator[nn.Module]:
    """Train both networks, and yield the generator after each epoch."""
    generator = nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.Sigmoid()
    )
    discriminator = nn.Sequential(
        nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)
    )
    generator_optimizer = make_optimizer(generator.parameters())
    discriminator_optimizer = make_optimizer(discriminator.parameters())
    for _ in range(10):
        for real in training[torch.randperm(len(training))].split(64):
            generated = generator(torch.randn(len(real), 16))
            discriminator_optimizer.zero_grad()
            fake_loss = softplus(discriminator(generated.detach())).mean()
            (fake_loss + softplus(-discriminator(real)).mean()).backward()
            discriminator_optimizer.step()
            generator_optimizer.zero_grad()
            softplus(-discriminator(generated)).mean().backward()
            generator_optimizer.step()
        yield generator


def train(
    make_optimizer: Callable[..., Any], seed: int
) -> Iterator[dict[str, float]]:
    images = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    rows = torch.randperm(len(images)).split([1_197, 300, 300])
    training, valid, test = (images[part] for part in rows)
    for generator in fit(make_optimizer, training):
        with torch.no_grad():
            generated = generator(torch.randn(300, 16))
        yield {
            "valid": energy_distance(generated, valid),
            "test": energy_distance(generated, test),
        }


def draw(make_optimizer: Callable[..., Any], file: str) -> None:
    """Train once more, and draw real digits above generated ones."""
    torch.manual_seed(0)
    images = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    *_, generator = fit(make_optimizer, images)
    with torch.no_grad():
        samples = torch.cat([images[:12], generator(torch.randn(24, 16))])
    figure, axes = plt.subplots(3, 12, figsize=(7.2, 1.9))
    for axis, sample in zip(axes.flat, samples, strict=True):
        axis.imshow(sample.view(8, 8), cmap="gray_r", vmin=0, vmax=1)
        axis.set_axis_off()
    axes[0, 0].set_title("real", loc="left", fontsize=9)
    axes[1, 0].set_title("generated", loc="left", fontsize=9)
    figure.savefig(file, bbox_inches="tight")


if __name__ == "__main__":
    result = gp.race(
        train,
        "adam,rmsprop,nesterov,optimistic_adam",
        direction="min",
        trials=13,
        seeds=8,
        out="runs/gan",
    )
    print(result)
    draw(result.best.make, "gan.svg")
