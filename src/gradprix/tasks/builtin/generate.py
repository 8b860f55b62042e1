"""Image generation: handwritten digits by flow matching and by a variational autoencoder."""

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
"""Height and width of MNIST's images."""
FREQUENCIES = 16
"""Number of frequencies in the embedding of time."""
STEPS = 25
"""Integration steps from noise to an image."""
SAMPLES = 500
"""Number of generated images that are compared with real ones."""
GRID = (4, 8)
"""Rows and columns of the picture."""


def load_digits(size: int, path: Path | None = None) -> Tensor:
    """Load 5,000 digits of MNIST, downscaled by average pooling.

    Args:
        size: height and width, a divisor of 28.
        path: the archive or the table in it (`.csv` or `.csv.gz`); None for the downloaded archive.

    Returns:
        `[5000, size * size]`, from 0 to 1.

    Raises:
        DataError: if the data cannot be obtained or read.
    """
    images = torch.tensor(mnist.load_digits(path)[0] / np.float32(255))
    return functional.avg_pool2d(images, SIDE // size).flatten(1)


class Flow(nn.Module):
    """Velocity field that transports noise to images, trained by flow matching with straight paths.

    Lipman et al. 2023, arXiv:2210.02747, section 4.1, with σ_min = 0. It has pre-norm residual blocks, and a skip
    connection from the input with time-dependent factors, as in Karras et al. 2022, arXiv:2206.00364, so that the
    blocks need not pass the noise on.

    Args:
        pixels: number of pixels of an image.
        width: width of the blocks.
        depth: number of blocks.
    """

    frequencies: Tensor

    def __init__(self, pixels: int, width: int, depth: int) -> None:
        super().__init__()
        frequencies = torch.logspace(0, 6, FREQUENCIES, base=2) * math.pi / 2
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.input = nn.Linear(pixels + 2 * FREQUENCIES, width)
        self.blocks = nn.ModuleList(_block(width) for _ in range(depth))
        self.output = nn.Linear(width, pixels)
        self.skip_scale = nn.Linear(2 * FREQUENCIES, pixels)

    def forward(self, images: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return the velocity between noise and image at the given times, and the noise; training draws both anew."""
        if self.training:
            noise, times = torch.randn_like(noise), torch.rand_like(times)
        return self.velocity((1 - times) * noise + times * images, times), noise

    def velocity(self, x: Tensor, times: Tensor) -> Tensor:
        """Return the velocity of `x` at times `[batch, 1]`, from 0 (noise) to 1 (image)."""
        angles = times * self.frequencies
        time = torch.cat([angles.sin(), angles.cos()], -1)
        hidden = self.input(torch.cat([x, time], -1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        velocity: Tensor = self.output(hidden) + self.skip_scale(time) * x
        return velocity

    def sample(self, count: int) -> Tensor:
        """Sample images `[count, pixels]`, from 0 to 1, by integrating noise with the midpoint method."""
        x = torch.randn(count, self.output.out_features)
        for step in range(STEPS):
            start, half = torch.full((count, 1), step / STEPS), 0.5 / STEPS
            x = x + 2 * half * self.velocity(x + half * self.velocity(x, start), start + half)
        return (0.5 + 0.5 * x).clamp(0, 1)


def _block(width: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))


def flow_loss(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
    """Return the mean squared error of the velocity, which is image minus noise on a straight path."""
    velocity, noise = outputs
    return functional.mse_loss(velocity, targets - noise)


def load_flow_data(size: int, path: Path | None = None) -> Data:
    """Load digits from -1 to 1, with fixed noise and a fixed time each for evaluation."""
    images, generator = 2 * load_digits(size, path) - 1, torch.Generator().manual_seed(0)
    noise, times = torch.randn(images.shape, generator=generator), torch.rand(len(images), 1, generator=generator)
    return Data((images, noise, times), images)


class VAE(nn.Module):
    """Variational autoencoder (Kingma and Welling 2014, arXiv:1312.6114, appendix C).

    Args:
        pixels: number of pixels of an image.
        width: width of the hidden layer of encoder and decoder.
        latent: dimensions of the latent variable.
    """

    def __init__(self, pixels: int, width: int, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, pixels))
        self.latent = latent

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of the pixels, and mean and log variance of the latent; training draws the noise anew."""
        if self.training:
            noise = torch.randn_like(noise)
        mean, log_variance = self.encoder(images).chunk(2, -1)
        return self.decoder(mean + noise * torch.exp(0.5 * log_variance)), mean, log_variance

    def sample(self, count: int) -> Tensor:
        """Decode latents drawn from the prior to images `[count, pixels]`, as the probability of ink in each pixel."""
        return torch.sigmoid(self.decoder(torch.randn(count, self.latent)))


def negative_elbo(outputs: tuple[Tensor, Tensor, Tensor], targets: Tensor) -> Tensor:
    """Return the mean negative evidence lower bound per binary image, in nats.

    Grey levels are probabilities of ink: the cross-entropy is then the mean over all binarizations (Salakhutdinov and
    Murray 2008), and the bound holds for any input of the encoder.
    """
    logits, mean, log_variance = outputs
    reconstruction = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(-1)
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1)
    return (reconstruction + divergence).mean()


def load_vae_data(size: int, latent: int, path: Path | None = None) -> Data:
    """Load digits from 0 to 1, with fixed noise each for evaluation."""
    images = load_digits(size, path)
    return Data((images, torch.randn(len(images), latent, generator=torch.Generator().manual_seed(0))), images)


def energy_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the unbiased energy distance between two sets of images; 0 in expectation for equal distributions.

    2 E|A - B| - E|A - A'| - E|B - B'|: Székely and Rizzo 2013, doi:10.1016/j.jspi.2013.03.018.

    Args:
        a: `[images, pixels]`.
        b: likewise; the number of images may differ.
    """
    within = [torch.cdist(x, x).sum() / (len(x) * (len(x) - 1)) for x in (a, b)]
    return 2 * torch.cdist(a, b).mean() - within[0] - within[1]


def analyze_samples(background: float, network: Flow | VAE, inputs: Any, targets: Tensor) -> dict[str, Any]:
    """Return a picture of generated digits, and the energy distance between generated and real ones.

    Args:
        background: target value of a pixel without ink.
        network: a trained network.
        inputs: unused.
        targets: real digits.
    """
    samples = network.sample(SAMPLES)
    real = (targets - background) / (1 - background)
    return {"digits made": tile_images(samples), "energy distance to real digits": energy_distance(samples, real)}


def tile_images(images: Tensor) -> Tensor:
    """Arrange the first images in a grid, `[height, width]`."""
    side = math.isqrt(images.shape[1])
    rows, columns = GRID
    grid = images[: rows * columns].view(rows, columns, side, side)
    return grid.transpose(1, 2).reshape(rows * side, columns * side)


def make_flow(preset: str = "default", path: Path | None = None) -> Task:
    """Return the task of flow matching.

    Args:
        preset: `"small"` and `"default"` have digits of 14 × 14 pixels, `"large"` of 28 × 28 and a larger network.
        path: a local copy of the archive or of the table in it; None for the downloaded archive.
    """
    size, width, depth, epochs, trials, seeds = FLOW_PRESETS[preset]
    return Task(
        name="generate",
        model=partial(Flow, size * size, width, depth),
        loss=flow_loss,
        metric=Metric("velocity error", flow_loss, higher_is_better=False, margin=0.02, relative=True),
        baseline=FLOW_BASELINES[size],
        data=partial(load_flow_data, size, path),
        batch_size=64,
        epochs=epochs,
        noise=0.005 if preset == "default" else None,  # median over pairs in a race of four entries
        entries=ENTRIES,
        trials=trials,
        seeds=seeds,
        after=partial(analyze_samples, -1.0),
        about=f"Digits of MNIST at {size} × {size} pixels out of noise: flow matching (Lipman et al. 2023), an MLP.",
    )


def make_vae(preset: str = "default", path: Path | None = None) -> Task:
    """Return the task of the variational autoencoder.

    Args:
        preset: as in `make_flow`.
        path: as in `make_flow`.
    """
    size, width, latent, epochs, trials, seeds = VAE_PRESETS[preset]
    return Task(
        name="generate-vae",
        model=partial(VAE, size * size, width, latent),
        loss=negative_elbo,
        metric=Metric("negative ELBO", negative_elbo, higher_is_better=False, margin=0.25),
        baseline=VAE_BASELINES[size],
        data=partial(load_vae_data, size, latent, path),
        batch_size=64,
        epochs=epochs,
        noise=0.11 if preset == "default" else None,  # median over pairs in a default race
        entries=ENTRIES,
        trials=trials,
        seeds=seeds,
        after=partial(analyze_samples, 0.0),
        about=f"Digits of MNIST at {size} × {size} pixels out of a code: a VAE (Kingma and Welling 2014), in nats.",
    )


ENTRIES = ("adamw", "nadam", "rmsprop", "adagrad", "nesterov", "lion")
FLOW_PRESETS = {
    "small": (14, 96, 1, 5, 4, 6),
    "default": (14, 192, 2, 40, 26, 16),
    "large": (28, 768, 4, 100, 26, 32),
}
"""For each preset: height and width of the images, width and depth of the network, epochs, trials and final seeds."""
FLOW_BASELINES = {14: 1.206, 28: 1.269}
"""Chance level by image size: the error of the mean image, which is the variance of the noise, 1, and of the pixels."""
VAE_PRESETS = {
    "small": (14, 64, 8, 6, 4, 6),
    "default": (14, 256, 16, 40, 26, 16),
    "large": (28, 512, 32, 150, 26, 32),
}
"""For each preset: height and width of the images, width of the network, latent size, epochs, trials, final seeds."""
VAE_BASELINES = {14: 52.26, 28: 206.6}
"""Chance level by image size: the entropy of the mean image's pixels, as for a latent without information."""
