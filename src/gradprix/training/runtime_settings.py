"""Process-wide options of torch for the training of a stack."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradprix.utils.devices import exact

FUNCTORCH: Any = torch._C._functorch


@contextlib.contextmanager
def runtime_settings(device: str = "cpu") -> Iterator[None]:
    """Temporarily set torch's process-wide options for the training of a stack.

    The options are one thread, denormals flushed to zero, exact arithmetic on GPUs, and no warnings from torch, which
    would refer to the traced program instead of the user's code. Workers do not set the options permanently, because
    they also run users' own training loops, which must keep their own options.

    Args:
        device: the device of the stack.
    """
    threads, fast = torch.get_num_threads(), torch.backends.mha.get_fastpath_enabled()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # denormal second moments make a step ten times slower
    torch.backends.mha.set_fastpath_enabled(False)
    profiling = torch._C._jit_set_profiling_executor(False)  # a step's shapes never change
    # C++ emits this warning past Python's filters. Preflight measures whether the fallback is slow.
    FUNCTORCH._set_vmap_fallback_warning_enabled(False)
    try:
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH), exact(torch.device(device)):
            warnings.simplefilter("ignore")
            yield
    finally:
        FUNCTORCH._set_vmap_fallback_warning_enabled(True)
        torch._C._jit_set_profiling_executor(profiling)
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
