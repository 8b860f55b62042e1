"""Situations with images."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import gradprix as gp

from .registry import ERROR, Classes, integers, pictures, random, situation


class Residual(nn.Module):
    """Residual block with batch norm; whole branches are dropped at random.

    Args:
        width: number of channels.
        drop: probability of dropping the branch of an example.
    """

    def __init__(self, width: int, drop: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        branch = self.branch(x)
        if self.training:
            keep = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop
            branch = branch * keep / (1 - self.drop)
        return x + branch


def resnet() -> nn.Module:
    """Return a small residual network."""
    blocks = [Residual(12, 0.1 * i) for i in range(3)]
    return nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))


@situation()
def resnet_label_smoothing() -> gp.Task:
    """ResNet with batch norm, stochastic depth and label smoothing."""
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    return Classes(name="resnet", model=resnet, loss=loss, data=pictures)


class ConvNeXt(nn.Module):
    """Blocks with depthwise convolution, layer norm and GELU; the rate of dropped branches is read from a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth = nn.Conv2d(3, 16, 4, 4), nn.Conv2d(16, 16, 7, padding=3, groups=16)
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 64), nn.Linear(64, 16)
        self.scale, self.head = nn.Parameter(torch.full((16,), 1e-2)), nn.Linear(16, 4)
        self.rates = torch.linspace(0, 0.2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for rate in self.rates:
            branch = self.norm(self.depth(x).permute(0, 2, 3, 1))
            branch = (self.down(functional.gelu(self.up(branch))) * self.scale).permute(0, 3, 1, 2)
            x = x + functional.dropout(branch, rate.item(), self.training)
        return self.head(x.mean((2, 3)))


@situation()
def convnext() -> gp.Task:
    """ConvNeXt whose drop rates are read by .item()."""
    return Classes(name="convnext", model=ConvNeXt, data=pictures)


class ViT(nn.Module):
    """Vision transformer with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, 4)
        self.token, self.positions = nn.Parameter(torch.zeros(1, 1, 32)), nn.Parameter(torch.zeros(1, 17, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.1, "gelu", batch_first=True, norm_first=True)
        self.blocks, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(self.blocks(x)[:, 0])


@situation()
def vit() -> gp.Task:
    """Vision transformer with dropout."""
    return Classes(name="vit", model=ViT, data=pictures)


@situation("transformers")
def vit_of_transformers() -> gp.Task:
    """ViT of Transformers."""

    def model() -> nn.Module:
        from transformers import ViTConfig, ViTForImageClassification

        sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = ViTConfig(**sizes, intermediate_size=64, image_size=16, patch_size=4, num_labels=4)
        return ViTForImageClassification(config)

    return Classes(
        name="vit-hf",
        model=model,
        loss=lambda output, target: functional.cross_entropy(output.logits, target),
        metric=gp.Metric("accuracy", lambda o, t: (o.logits.argmax(-1) == t).double().mean(), True, 0.01),
        data=pictures,
    )


class Mixup(nn.Module):
    """Network that mixes pairs of examples in training, and returns the weight and the partners for the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(768, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.training:
            return self.network(x), torch.ones(()), torch.arange(len(x))
        weight, partner = torch.distributions.Beta(0.4, 0.4).sample(), torch.randperm(len(x))
        return self.network(weight * x + (1 - weight) * x[partner]), weight, partner


@situation()
def mixup() -> gp.Task:
    """Mixup with a Beta-distributed weight: the model returns output, weight and partners."""

    def loss(output: Any, target: Tensor) -> Tensor:
        y, weight, partner = output
        pair = functional.cross_entropy(y, target), functional.cross_entropy(y, target[partner])
        return weight * pair[0] + (1 - weight) * pair[1]

    metric = gp.Metric("accuracy", lambda o, t: (o[0].argmax(-1) == t).double().mean(), True, 0.01)
    return Classes(name="mixup", model=Mixup, loss=loss, metric=metric, data=pictures)


class Checkpointed(nn.Module):
    """Convolutions with activation checkpointing and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(), nn.Dropout(0.1))
        self.second = nn.Sequential(nn.Conv2d(12, 12, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(192, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(self.first, x, use_reentrant=False)
        return checkpoint(self.second, x, use_reentrant=False)


@situation()
def checkpointing() -> gp.Task:
    """Activation checkpointing."""
    return Classes(name="checkpointing", model=Checkpointed, data=pictures)


class Autocast(nn.Module):
    """Network whose forward pass runs in bfloat16 by autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(768, 64), nn.ReLU(), nn.LayerNorm(64), nn.Linear(64, 4))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.network(x).float()


@situation(tolerance=2e-2)
def autocast() -> gp.Task:
    """Autocast to bfloat16 in forward."""
    return Classes(name="autocast", model=Autocast, data=pictures)


@situation(tolerance=2e-2)
def autocast_option() -> gp.Task:
    """Autocast to bfloat16 as a task option."""
    return Classes(name="autocast-option", model=vit().model, data=pictures, autocast=torch.bfloat16)


class Diffusion(nn.Module):
    """Denoising network: adds noise at a random time in training, and predicts it."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(13, 64), nn.SiLU(), nn.Linear(64, 12))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        time, noise = torch.rand(len(x), 1), torch.randn_like(x)
        noisy = (1 - time).sqrt() * x + time.sqrt() * noise
        return self.network(torch.cat([noisy, time], 1)), noise


@situation()
def diffusion() -> gp.Task:
    """Diffusion: noise and times drawn in forward."""
    loss = lambda output, target: functional.mse_loss(*output)  # noqa: E731
    metric = gp.Metric("squared error", loss, False, 0.02, relative=True)
    return Classes(
        name="diffusion",
        model=Diffusion,
        loss=loss,
        metric=metric,
        baseline=1.0,
        data=lambda: gp.Data(random(160, 12), random(160, 1)),
    )


BACKBONE = nn.Sequential(nn.Flatten(), nn.Linear(768, 32), nn.ReLU())
"""Shared layers, which are not trained."""


@situation()
def frozen_backbone() -> gp.Task:
    """A frozen backbone that all models share."""

    def model() -> nn.Module:
        return nn.Sequential(BACKBONE.requires_grad_(False), nn.Linear(32, 4))

    return Classes(name="frozen", model=model, data=pictures)


@situation()
def two_heads() -> gp.Task:
    """Two heads: outputs and targets are dictionaries, class weights in the loss."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.color, self.size = nn.Linear(12, 32), nn.Linear(32, 4), nn.Linear(32, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            h = self.body(x).relu()
            return {"color": self.color(h), "size": self.size(h).squeeze(-1)}

    weights = torch.tensor([1.0, 2.0, 1.0, 0.5])

    def loss(output: dict[str, Tensor], target: dict[str, Tensor]) -> Tensor:
        color = functional.cross_entropy(output["color"], target["color"], weights)
        return color + functional.mse_loss(output["size"], target["size"])

    metric = gp.Metric("loss", loss, False, 0.02, relative=True)
    targets = {"color": integers(4, 160), "size": random(160, seed=2)}
    data = lambda: gp.Data(random(160, 12), targets)  # noqa: E731
    return Classes(name="two-heads", model=Heads, loss=loss, metric=metric, baseline=3.0, data=data)


@situation()
def several_targets() -> gp.Task:
    """Several regression targets."""
    return Classes(
        name="regression",
        model=lambda: nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 3)),
        loss=functional.mse_loss,
        metric=ERROR,
        baseline=1.0,
        data=lambda: gp.Data(random(160, 12), random(160, 12)[:, :3].sin()),
    )
