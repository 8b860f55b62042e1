"""Image generation: handwritten digits, by flow matching and by a variational autoencoder."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradprix.tasks.data import Data
from gradprix.tasks.task import Metric, Task

from . import mnist

SIDE = 28
FREQUENCIES = 16
STEPS = 25
"""Of the integration from noise to a digit."""
GENERATED = 500
"""Images that a network's distance from real ones is measured with."""
GRID = (4, 8)
"""Rows and columns of the picture."""


def digits(size: int, path: Path | None = None) -> Tensor:
    """5,000 digits of MNIST, the means of squares of pixels.

    Args:
        size: pixels a side, a divisor of 28.
        path: the archive or the table in it (`.csv` or `.csv.gz`), or None for the archive that is fetched.

    Returns:
        `[5000, size * size]`, from 0 to 1.

    Raises:
        DataError: when they cannot be had or read.
    """
    images = torch.tensor(mnist.digits(path)[0] / np.float32(255))
    return functional.avg_pool2d(images, SIDE // size).flatten(1)


class Flow(nn.Module):
    """The velocity at which noise becomes an image, by flow matching with straight paths.

    Lipman et al. 2023, arXiv:2210.02747, section 4.1, with σ_min = 0. Blocks with a layer norm in front and a way
    around them; beside them a product of each pixel with a number that depends on time alone, so that noise need not
    go through the network to come out of it (as the skip of Karras et al. 2022, arXiv:2206.00364).

    Args:
        pixels: of an image.
        width: of the blocks.
        depth: how many there are.
    """

    frequencies: Tensor

    def __init__(self, pixels: int, width: int, depth: int) -> None:
        super().__init__()
        frequencies = torch.logspace(0, 6, FREQUENCIES, base=2) * math.pi / 2
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.enter = nn.Linear(pixels + 2 * FREQUENCIES, width)
        self.blocks = nn.ModuleList(_block(width) for _ in range(depth))
        self.leave = nn.Linear(width, pixels)
        self.around = nn.Linear(2 * FREQUENCIES, pixels)

    def forward(self, images: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity between noise and image at some time, and the noise; both are drawn anew in training."""
        if self.training:
            noise, times = torch.randn_like(noise), torch.rand_like(times)
        return self.velocity((1 - times) * noise + times * images, times), noise

    def velocity(self, x: Tensor, times: Tensor) -> Tensor:
        """Where `x` goes at its time, `[examples, 1]`, 0 for noise and 1 for an image."""
        angles = times * self.frequencies
        time = torch.cat([angles.sin(), angles.cos()], -1)
        hidden = self.enter(torch.cat([x, time], -1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        velocity: Tensor = self.leave(hidden) + self.around(time) * x
        return velocity

    def made(self, count: int) -> Tensor:
        """Images out of torch's noise, `[count, pixels]`, from 0 to 1, by the midpoint method."""
        x = torch.randn(count, self.leave.out_features)
        for step in range(STEPS):
            start, half = torch.full((count, 1), step / STEPS), 0.5 / STEPS
            x = x + 2 * half * self.velocity(x + half * self.velocity(x, start), start + half)
        return (0.5 + 0.5 * x).clamp(0, 1)


def _block(width: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))


def flow_loss(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
    """The squared error of the velocity, which on a straight path is image minus noise."""
    velocity, noise = outputs
    return functional.mse_loss(velocity, targets - noise)


def flow_data(size: int, path: Path | None = None) -> Data:
    """Digits from -1 to 1, each with noise and a time of its own to be evaluated at."""
    images, luck = 2 * digits(size, path) - 1, torch.Generator().manual_seed(0)
    noise, times = torch.randn(images.shape, generator=luck), torch.rand(len(images), 1, generator=luck)
    return Data((images, noise, times), images)


class VAE(nn.Module):
    """A variational autoencoder: Kingma and Welling 2014, arXiv:1312.6114, appendix C.

    Args:
        pixels: of an image.
        width: of the hidden layers, one on each side.
        latent: dimensions of the code.
    """

    def __init__(self, pixels: int, width: int, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, pixels))
        self.latent = latent

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the pixels, and mean and log variance of the code; its noise is drawn anew in training."""
        if self.training:
            noise = torch.randn_like(noise)
        mean, log_variance = self.encoder(images).chunk(2, -1)
        return self.decoder(mean + noise * torch.exp(0.5 * log_variance)), mean, log_variance

    def made(self, count: int) -> Tensor:
        """Images out of codes from the prior, `[count, pixels]`: the share of ink in each pixel."""
        return torch.sigmoid(self.decoder(torch.randn(count, self.latent)))


def negative_elbo(outputs: tuple[Tensor, Tensor, Tensor], targets: Tensor) -> Tensor:
    """The negative evidence lower bound in nats an image, of black and white images.

    Grey is the probability of ink: the cross-entropy with it is the mean over all ways to draw it black or white
    (Salakhutdinov and Murray 2008), and the bound holds whatever the encoder sees.
    """
    logits, mean, log_variance = outputs
    ink = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(-1)
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1)
    return (ink + divergence).mean()


def vae_data(size: int, latent: int, path: Path | None = None) -> Data:
    """Digits from 0 to 1, each with noise of its own to be evaluated at."""
    images = digits(size, path)
    return Data((images, torch.randn(len(images), latent, generator=torch.Generator().manual_seed(0))), images)


def energy_distance(a: Tensor, b: Tensor) -> Tensor:
    """How far apart two sets of images are as distributions: 0 if they are the same, and without bias.

    2 E|A - B| - E|A - A'| - E|B - B'|: Székely and Rizzo 2013, doi:10.1016/j.jspi.2013.03.018.

    Args:
        a: `[images, pixels]`.
        b: likewise; the number may differ.
    """
    within = [torch.cdist(x, x).sum() / (len(x) * (len(x) - 1)) for x in (a, b)]
    return 2 * torch.cdist(a, b).mean() - within[0] - within[1]


def after(least: float, network: Flow | VAE, inputs: Any, targets: Tensor) -> dict[str, Any]:
    """Digits that the network makes, and how far such are from real ones.

    Args:
        least: the target's value of a pixel without ink.
        network: a trained one.
        inputs: not needed.
        targets: real digits.
    """
    made = network.made(GENERATED)
    real = (targets - least) / (1 - least)
    return {"digits made": grid(made), "energy distance to real digits": energy_distance(made, real)}


def grid(images: Tensor) -> Tensor:
    """The first images side by side, `[height, width]`."""
    side = math.isqrt(images.shape[1])
    rows, columns = GRID
    shown = images[: rows * columns].view(rows, columns, side, side)
    return shown.transpose(1, 2).reshape(rows * side, columns * side)


def make(preset: str = "default", path: Path | None = None) -> Task:
    """Flow matching.

    Args:
        preset: `"small"` and `"default"` have digits of 14 × 14 pixels, `"large"` of 28 × 28 and a larger network.
        path: a copy of the archive, or of the table in it, instead of the archive that is fetched.
    """
    size, width, depth, epochs, trials, seeds = FLOWS[preset]
    return Task(
        name="generate",
        model=partial(Flow, size * size, width, depth),
        loss=flow_loss,
        metric=Metric("velocity error", flow_loss, higher_is_better=False, margin=0.02, relative=True),
        baseline=FLOW_BASELINES[size],
        data=partial(flow_data, size, path),
        batch_size=64,
        epochs=epochs,
        noise=0.005 if preset == "default" else None,  # the median over pairs of a race of four entries
        entries=ENTRIES,
        trials=trials,
        seeds=seeds,
        after=partial(after, -1.0),
        about=f"Digits of MNIST at {size} × {size} pixels out of noise: flow matching (Lipman et al. 2023), an MLP.",
    )


def make_vae(preset: str = "default", path: Path | None = None) -> Task:
    """The variational autoencoder.

    Args:
        preset: as for flow matching.
        path: likewise.
    """
    size, width, latent, epochs, trials, seeds = VAES[preset]
    return Task(
        name="generate-vae",
        model=partial(VAE, size * size, width, latent),
        loss=negative_elbo,
        metric=Metric("negative ELBO", negative_elbo, higher_is_better=False, margin=0.25),
        baseline=VAE_BASELINES[size],
        data=partial(vae_data, size, latent, path),
        batch_size=64,
        epochs=epochs,
        noise=0.11 if preset == "default" else None,  # the median over pairs of a default race
        entries=ENTRIES,
        trials=trials,
        seeds=seeds,
        after=partial(after, 0.0),
        about=f"Digits of MNIST at {size} × {size} pixels out of a code: a VAE (Kingma and Welling 2014), in nats.",
    )


ENTRIES = ("adamw", "nadam", "rmsprop", "adagrad", "nesterov", "lion")
FLOWS = {
    "small": (14, 96, 1, 5, 4, 6),
    "default": (14, 192, 2, 40, 13, 16),
    "large": (28, 768, 4, 100, 19, 16),
}
"""Of each preset: pixels a side, width and depth of the network, epochs, trials and seeds."""
FLOW_BASELINES = {14: 1.206, 28: 1.269}
"""The best constant velocity is the mean image, as noise has mean 0: 1, the variance of noise, and the pixels' own."""
VAES = {
    "small": (14, 64, 8, 6, 4, 6),
    "default": (14, 256, 16, 40, 13, 16),
    "large": (28, 512, 32, 150, 19, 16),
}
"""Of each preset: pixels a side, width of the network, dimensions of the code, epochs, trials and seeds."""
VAE_BASELINES = {14: 52.26, 28: 206.6}
"""The entropy of the mean image's pixels: the best answer that is the same for all images, whose code says nothing."""
