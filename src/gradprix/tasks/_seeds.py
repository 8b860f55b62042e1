"""One seed, several independent streams of random numbers."""

import hashlib
from collections.abc import Callable

import torch
from torch import nn


def stream(seed: int, purpose: str) -> torch.Generator:
    """A generator that depends on the seed and on what it is for, so that no two purposes share numbers."""
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


def fresh(model: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A network with the initial weights of a seed; the caller's own random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model()
