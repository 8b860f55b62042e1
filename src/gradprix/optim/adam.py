"""`torch.optim.adam` with this package's `Adam`, whose update is the rule `gradprix.rules.adam`."""

import torch.optim.adam as torch_module
from torch.optim.adam import *  # noqa: F403

from ._classes import Adam as Adam


def __getattr__(name: str) -> object:
    return getattr(torch_module, name)
