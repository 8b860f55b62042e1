"""`torch.optim.nadam` with this package's `NAdam`."""

import torch.optim.nadam as torch_module
from torch.optim.nadam import *  # noqa: F403

from ._classes import NAdam as NAdam


def __getattr__(name: str) -> object:
    return getattr(torch_module, name)
