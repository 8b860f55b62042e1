"""PyTorch's own list of optimizers and their inputs, without the rest of its test suite, which takes long to import."""

import sys
from unittest.mock import MagicMock

import pytest

pytest.importorskip("expecttest", reason="torch.testing needs it")
UNUSED = [f"torch.testing._internal.{name}" for name in ("common_device_type", "common_methods_invocations")]
"""The list takes from these what decides which of PyTorch's tests are skipped."""

with pytest.MonkeyPatch.context() as patch:
    for name in UNUSED:
        patch.setitem(sys.modules, name, MagicMock())
    from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

__all__ = ["OptimizerErrorEnum", "optim_db"]
