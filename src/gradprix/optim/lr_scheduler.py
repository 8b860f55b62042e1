"""`torch.optim.lr_scheduler` itself, under this package's name."""

import sys

import torch.optim.lr_scheduler as torch_module
from torch.optim.lr_scheduler import *  # noqa: F403

sys.modules[__name__] = torch_module
