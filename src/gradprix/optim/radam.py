"""`torch.optim.radam` with this package's `RAdam`."""

import torch.optim.radam as torch_module
from torch.optim.radam import *  # noqa: F403

from ._classes import RAdam as RAdam


def __getattr__(name: str) -> object:
    return getattr(torch_module, name)
