"""Situations with training options: clipping, accumulation, parameter groups, averaged weights."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import gradprix as gp

from .registry import Classes, pictures, situation, table
from .tables import mlp
from .vision import resnet, vit


def examples() -> gp.Data:
    """Return a table with four classes."""
    return gp.Data(*table())


@situation()
def clipping() -> gp.Task:
    """Clipping of the gradient norm."""
    return Classes(name="clipping", model=vit().model, data=pictures, clip_norm=0.5)


@situation()
def accumulation() -> gp.Task:
    """Gradient accumulation."""
    return Classes(name="accumulation", model=mlp, data=examples, accumulate=4)


@situation()
def no_decay_norms() -> gp.Task:
    """No weight decay for biases and norms."""
    return Classes(name="no-decay", model=resnet, data=pictures, groups="no_decay_norms")


@situation()
def layer_rates() -> gp.Task:
    """A tenth of the learning rate for the first layers."""

    def groups(model: nn.Module) -> list[dict[str, Any]]:
        first, *rest = model
        return [
            {"params": first.parameters(), "lr_factor": 0.1},
            {"params": [x for layer in rest for x in layer.parameters()]},
        ]

    return Classes(name="layer-rates", model=mlp, data=examples, groups=groups)


@situation()
def averaged_weights() -> gp.Task:
    """Moving average of the weights, evaluated beside the weights."""
    return Classes(name="ema", model=mlp, data=examples, ema=0.9)


class Tempered(nn.Module):
    """Cross-entropy with a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output * self.temperature, target)


@situation()
def loss_parameters() -> gp.Task:
    """A loss with a parameter of its own."""
    return Classes(name="tempered", model=mlp, data=examples, loss=Tempered())


@situation()
def all_options() -> gp.Task:
    """Accumulation, clipping, groups, averaged weights and warm-up together."""
    return Classes(
        name="all-options",
        model=vit().model,
        data=pictures,
        accumulate=2,
        clip_norm=1.0,
        groups="no_decay_norms",
        ema=0.9,
        schedule="warmup",
    )
