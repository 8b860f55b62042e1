"""`torch.optim.asgd` itself, under this package's name."""

import sys

import torch.optim.asgd as torch_module
from torch.optim.asgd import *  # noqa: F403

sys.modules[__name__] = torch_module
