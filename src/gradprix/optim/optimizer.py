"""`torch.optim.optimizer` itself, under this package's name."""

import sys

import torch.optim.optimizer as torch_module
from torch.optim.optimizer import *  # noqa: F403

sys.modules[__name__] = torch_module
