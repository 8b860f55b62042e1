"""`torch.optim.adagrad` with this package's `Adagrad`."""

import torch.optim.adagrad as torch_module
from torch.optim.adagrad import *  # noqa: F403

from ._classes import Adagrad as Adagrad


def __getattr__(name: str) -> object:
    return getattr(torch_module, name)
