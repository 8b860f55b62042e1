"""Provenance of a trial's results: the library versions and the processor type, which affect rounding."""

import platform

import numpy as np
import torch

from gradprix import __version__

ARITHMETIC = 10
"""Version of the training arithmetic, incremented when the same plan yields other results. Results of different
versions are not combined."""


def versions() -> str:
    """Return the versions of gradprix, torch and NumPy."""
    return f"gradprix {__version__} (arithmetic {ARITHMETIC}), torch {torch.__version__}, numpy {np.__version__}"


def provenance(gpu: str = "") -> str:
    """Return the library versions and the processor type as text; trials with equal provenance agree bit for bit.

    Args:
        gpu: description of the GPU that the models are trained on; empty for the CPU.
    """
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return ", ".join(filter(None, (versions(), cpu, gpu)))
