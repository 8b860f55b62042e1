"""A model and its loss as one module: for losses with parameters of their own, and for autocast."""

import contextlib
import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


class ModelWithLoss(nn.Module):
    """A model and its loss as one module, whose parameters are those of both.

    The forward pass is that of the model.

    Args:
        model: the model.
        loss: the loss.
        autocast: dtype to which `torch.autocast` converts in the forward pass and in the loss; None for no autocast.
    """

    def __init__(self, model: nn.Module, loss: Any, autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self.model, self.loss, self.autocast = model, loss, autocast

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output of the model."""
        with self._precision():
            return self.model(*args, **kwargs)

    def compute_loss(self, output: Any, targets: Any) -> Any:
        """Return the loss."""
        with self._precision():
            return self.loss(output, targets)

    def loss_at(self, tensors: Mapping[str, Tensor], output: Any, targets: Any) -> Any:
        """Return the loss at given values of the parameters and buffers of this module."""
        if not isinstance(self.loss, nn.Module):
            return self.compute_loss(output, targets)
        own = {name.removeprefix("loss."): x for name, x in tensors.items() if name.startswith("loss.")}
        with self._precision():
            return functional_call(self.loss, own, (output, targets))

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(next(self.parameters()).device.type, self.autocast)


def own_model(model: nn.Module) -> nn.Module:
    """Return the model of a task without its loss."""
    return model.model if isinstance(model, ModelWithLoss) else model


def trained_modules(model: nn.Module) -> nn.Module:
    """Return the model of a task; with its loss only if the loss has parameters."""
    loss = model.loss if isinstance(model, ModelWithLoss) else None
    return model if isinstance(loss, nn.Module) and any(True for _ in loss.parameters()) else own_model(model)


def is_built_for_each_run(loss: Any) -> bool:
    """Return True for a class of modules, and for a module whose tensors change: by training, or in its forward pass.

    The buffers of torch's own losses, such as the weights of classes, do not change.
    """
    if not isinstance(loss, nn.Module):
        return _is_module_class(loss)
    own = (module for module in loss.modules() if module.__module__.partition(".")[0] != "torch")
    has_buffers = any(True for module in own for _ in module.buffers(recurse=False))
    return has_buffers or any(x.requires_grad for x in loss.parameters())


def new_loss(loss: Any) -> Any:
    """Return a loss for one run: an instance of a class, a copy of a module, or a function.

    Raises:
        TypeError: if a `functools.partial` returns something else than a module.
    """
    if _is_module_class(loss):
        return loss()
    return copy.deepcopy(loss) if isinstance(loss, nn.Module) else loss


def _is_module_class(loss: Any) -> bool:
    """Return True for a subclass of `nn.Module`, or a `functools.partial` of one."""
    while isinstance(loss, partial):
        loss = loss.func
    return isinstance(loss, type) and issubclass(loss, nn.Module)
