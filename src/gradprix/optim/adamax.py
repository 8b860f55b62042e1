"""`torch.optim.adamax` with this package's `Adamax`."""

import torch.optim.adamax as torch_module
from torch.optim.adamax import *  # noqa: F403

from ._classes import Adamax as Adamax


def __getattr__(name: str) -> object:
    return getattr(torch_module, name)
