"""`torch.optim.lbfgs` itself, under this package's name."""

import sys

import torch.optim.lbfgs as torch_module
from torch.optim.lbfgs import *  # noqa: F403

sys.modules[__name__] = torch_module
