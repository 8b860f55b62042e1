"""Provenance of a trial's numbers beyond its specification: library versions and processor type."""

import platform

import numpy as np
import torch

from gradprix import __version__

ARITHMETIC = 7
"""Incremented when the same plan trains to other numbers; results of another version are not mixed in."""


def versions() -> str:
    """Return the versions of gradprix, torch and NumPy."""
    return f"gradprix {__version__} (arithmetic {ARITHMETIC}), torch {torch.__version__}, numpy {np.__version__}"


def provenance(gpu: str = "") -> str:
    """Return the versions and the processor type: trials with equal provenance agree bit for bit.

    Args:
        gpu: the GPU that the models are trained on, if any.
    """
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return ", ".join(filter(None, (versions(), cpu, gpu)))
