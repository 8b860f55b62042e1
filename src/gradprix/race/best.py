"""Recommended optimizer of a race."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

import msgspec
import torch
from torch import nn

from gradprix import optim
from gradprix.training.param_groups import build_optimizer


class Best(msgspec.Struct, frozen=True):
    """Recommended optimizer with its tuned hyperparameters.

    Args:
        name: name of the entry.
        optimizer: name of the optimizer's class in `gradprix.optim`, or full name of a class from another package.
        arguments: constructor arguments of the class.
        code: constructor call as source code.
        schedule: learning-rate schedule with which the optimizer was tuned.
        clip_norm: maximum norm of the gradient with which the optimizer was tuned; None if it was not clipped, and in
            records of earlier versions.
        sam_rho: radius of sharpness-aware minimization; None if it was not used.
    """

    name: str
    optimizer: str
    arguments: dict[str, Any]
    code: str
    schedule: str
    clip_norm: float | None = None
    sam_rho: float | None = None

    def make(self, params: Iterable[Any] | nn.Module, *, total_steps: int | None = None) -> torch.optim.Optimizer:
        """Construct the optimizer for a model.

        Use it with the learning-rate schedule with which it was tuned; see `gradprix.schedule`.

        Args:
            params: parameters, parameter groups or a model. Groups may have the keys `lr_factor` and
                `weight_decay_factor`. A function that takes a model needs one.
            total_steps: number of steps of the training, for an optimizer that asks for it.

        Raises:
            TypeError: if the optimizer takes a model, and `params` is none.
            ValueError: if a user-supplied rule or class cannot be imported. A record contains its name, not its code.
        """
        module, _, name = self.optimizer.rpartition(".")
        try:
            make = getattr(import_module(module) if module else optim, name)
        except (ImportError, AttributeError):
            raise ValueError(f"{self.name} steps with code of your own. Make it yourself: {self.code}") from None
        return build_optimizer(make, params, self.arguments, total_steps=total_steps)
