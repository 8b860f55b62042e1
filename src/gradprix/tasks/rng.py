"""One seed, several independent streams of random numbers."""

import hashlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn


def stream(seed: int, purpose: str) -> torch.Generator:
    """A generator that depends on the seed and on what it is for, so that no two purposes share numbers."""
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


def fresh(model: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A network with the initial weights of a seed; the caller's own random numbers are left as they were."""
    with Luck(torch.Generator().manual_seed(seed)):
        return model()


class Luck:
    """The random numbers of torch, Python and NumPy, lent to one purpose; the caller's own are left as they were.

    Args:
        generator: where they begin. While it is entered, they go on from where they were when it was left.
    """

    def __init__(self, generator: torch.Generator) -> None:
        seed = generator.initial_seed()
        self.states: Any = (
            generator.get_state(),
            random.Random(seed).getstate(),
            np.random.RandomState(seed % 2**32).get_state(),
        )

    def __enter__(self) -> Any:
        self.outside = luck()
        _set_luck(self.states)
        return self.states

    def __exit__(self, *_: object) -> None:
        self.states = luck()
        _set_luck(self.outside)


def luck() -> tuple[Any, Any, Any]:
    """Where the random numbers of torch, Python and NumPy are."""
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def _set_luck(states: tuple[Any, Any, Any]) -> None:
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])
