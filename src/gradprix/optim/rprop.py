"""`torch.optim.rprop` with this package's `Rprop`."""

import torch.optim.rprop as torch_module
from torch.optim.rprop import *  # noqa: F403

from ._classes import Rprop as Rprop


def __getattr__(name: str) -> object:
    return getattr(torch_module, name)
