"""Losses with parameters of their own, which are trained together with those of the model."""

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


class ModelWithLoss(nn.Module):
    """A model and its loss as one module, whose parameters are those of both.

    The forward pass is that of the model.

    Args:
        model: the model.
        loss: the loss.
    """

    def __init__(self, model: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output of the model."""
        return self.model(*args, **kwargs)

    def loss_at(self, tensors: Mapping[str, Tensor], output: Any, targets: Any) -> Any:
        """Return the loss at given values of the parameters and buffers of this module."""
        own = {name.removeprefix("loss."): x for name, x in tensors.items() if name.startswith("loss.")}
        return functional_call(self.loss, own, (output, targets))


def own_model(model: nn.Module) -> nn.Module:
    """Return the model of a task without its loss."""
    return model.model if isinstance(model, ModelWithLoss) else model


def has_trained_parameters(loss: Any) -> bool:
    """Return True if a loss has parameters that are trained, or is a class of modules, which is built for each run."""
    if isinstance(loss, nn.Module):
        return any(x.requires_grad for x in loss.parameters())
    return _is_module_class(loss)


def new_loss(loss: Any) -> nn.Module:
    """Return a loss for one run: an instance of a class, or a copy of a module.

    Raises:
        TypeError: if a `functools.partial` returns something else than a module.
    """
    return loss() if _is_module_class(loss) else copy.deepcopy(loss)  # type: ignore[no-any-return]


def _is_module_class(loss: Any) -> bool:
    """Return True for a subclass of `nn.Module`, or a `functools.partial` of one."""
    while isinstance(loss, partial):
        loss = loss.func
    return isinstance(loss, type) and issubclass(loss, nn.Module)
