"""`torch.optim.adadelta` with this package's `Adadelta`."""

import torch.optim.adadelta as torch_module
from torch.optim.adadelta import *  # noqa: F403

from ._classes import Adadelta as Adadelta


def __getattr__(name: str) -> object:
    return getattr(torch_module, name)
