"""`torch.optim.rprop` itself, under this package's name."""

import sys

import torch.optim.rprop as torch_module
from torch.optim.rprop import *  # noqa: F403

sys.modules[__name__] = torch_module
