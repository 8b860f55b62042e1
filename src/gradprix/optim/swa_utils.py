"""`torch.optim.swa_utils` itself, under this package's name."""

import sys

import torch.optim.swa_utils as torch_module
from torch.optim.swa_utils import *  # noqa: F403

sys.modules[__name__] = torch_module
