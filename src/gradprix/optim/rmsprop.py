"""`torch.optim.rmsprop` with this package's `RMSprop`."""

import torch.optim.rmsprop as torch_module
from torch.optim.rmsprop import *  # noqa: F403

from ._classes import RMSprop as RMSprop


def __getattr__(name: str) -> object:
    return getattr(torch_module, name)
