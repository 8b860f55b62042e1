"""`torch.optim.sparse_adam` itself, under this package's name."""

import sys

import torch.optim.sparse_adam as torch_module
from torch.optim.sparse_adam import *  # noqa: F403

sys.modules[__name__] = torch_module
