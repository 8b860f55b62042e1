"""What a trial's numbers depend on besides its specification: the versions of libraries and the kind of processor."""

import platform

import numpy as np
import torch

from gradprix import __version__

ARITHMETIC = 3
"""Counts up when the same plan trains to other numbers: what was trained before is then not mixed in."""


def versions() -> str:
    """Return the versions of everything that computes a number."""
    return f"gradprix {__version__} (arithmetic {ARITHMETIC}), torch {torch.__version__}, numpy {np.__version__}"


def provenance(gpu: str = "") -> str:
    """Return the versions and the kind of processor: trials with equal provenance repeat to the bit.

    Args:
        gpu: the GPU that the models are trained on, if not the CPU.
    """
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return ", ".join(filter(None, (versions(), cpu, gpu)))
