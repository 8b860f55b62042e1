"""Drop-ins for `torch.optim`, each made from its rule: the same names, arguments, defaults and numbers."""

from typing import Any

import torch

from ._classes import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop, of
from ._optimizer import Optimizer

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "Optimizer", "RAdam", "RMSprop", "of"]


def __getattr__(name: str) -> Any:
    # What is not ours yet is torch's, so that an import of torch.optim can simply be swapped.
    try:
        return getattr(torch.optim, name)
    except AttributeError:
        raise AttributeError(f"neither gradprix.optim nor torch.optim has {name!r}") from None
