"""The recommended optimizer of a race."""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

import msgspec
import torch

from gradprix import optim
from gradprix.training.param_groups import build_optimizer


class Best(msgspec.Struct, frozen=True):
    """Recommended optimizer with its tuned hyperparameters.

    Args:
        name: name of the entry.
        optimizer: name of its class in `gradprix.optim`, or the full name of another class.
        arguments: arguments of the class.
        code: the constructor call as source code.
        schedule: learning-rate schedule that it was tuned with.
    """

    name: str
    optimizer: str
    arguments: dict[str, Any]
    code: str
    schedule: str

    def make(self, params: Iterable[Any]) -> torch.optim.Optimizer:
        """Construct the optimizer for some parameters; use it with its learning-rate schedule, see `gradprix.schedule`.

        Args:
            params: parameters or parameter groups, which may have an `lr_factor` and a `weight_decay_factor`.

        Raises:
            ValueError: if a user-supplied rule or class cannot be imported: a record holds names, not code.
        """
        module, _, name = self.optimizer.rpartition(".")
        try:
            make = getattr(import_module(module) if module else optim, name)
        except (ImportError, AttributeError):
            raise ValueError(f"{self.name} steps with code of your own. Make it yourself: {self.code}") from None
        return build_optimizer(make, params, self.arguments)
