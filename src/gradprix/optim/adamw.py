"""`torch.optim.adamw` with this package's `AdamW`."""

import torch.optim.adamw as torch_module
from torch.optim.adamw import *  # noqa: F403

from ._classes import Adam as Adam
from ._classes import AdamW as AdamW


def __getattr__(name: str) -> object:
    return getattr(torch_module, name)
