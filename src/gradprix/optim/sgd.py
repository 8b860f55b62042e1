"""`torch.optim.sgd` with this package's `SGD`."""

import torch.optim.sgd as torch_module
from torch.optim.sgd import *  # noqa: F403

from ._classes import SGD as SGD


def __getattr__(name: str) -> object:
    return getattr(torch_module, name)
