"""`torch.optim.asgd` with this package's `ASGD`."""

import torch.optim.asgd as torch_module
from torch.optim.asgd import *  # noqa: F403

from ._classes import ASGD as ASGD


def __getattr__(name: str) -> object:
    return getattr(torch_module, name)
