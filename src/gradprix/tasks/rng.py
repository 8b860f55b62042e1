"""Seeded random streams.

Every trial of a race draws its initial weights, data order and dropout masks from streams that depend only on the
trial's seed and on the stream's purpose, so that two optimizers with one seed see the same randomness.
"""

import hashlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn


def stream(seed: int, purpose: str) -> torch.Generator:
    """Return a random generator for one purpose under a seed, such as `"order"` or `"dropout"`.

    Streams with different purposes are independent.
    """
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


def init_model(model: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a model with the initial weights of a seed, leaving the caller's global RNG state unchanged."""
    with RngState(torch.Generator().manual_seed(seed)):
        return model()


class RngState:
    """The global RNG state of torch, Python and NumPy, as a context manager.

    Entering the context installs this state as the global state. Leaving it saves the state reached, so that entering
    again resumes the random streams, and restores the caller's state.

    Args:
        generator: initial state of torch's generator; its initial seed also seeds Python and NumPy.
    """

    def __init__(self, generator: torch.Generator) -> None:
        seed = generator.initial_seed()
        self.states: Any = (
            generator.get_state(),
            random.Random(seed).getstate(),
            np.random.RandomState(seed % 2**32).get_state(),
        )

    def __enter__(self) -> Any:
        self.outside = get_rng_state()
        _set_rng_state(self.states)
        return self.states

    def __exit__(self, *_: object) -> None:
        self.states = get_rng_state()
        _set_rng_state(self.outside)


def get_rng_state() -> tuple[Any, Any, Any]:
    """Return the current global RNG state of torch, Python and NumPy."""
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def equal_rng_states(first: tuple[Any, Any, Any], second: tuple[Any, Any, Any]) -> bool:
    """Return True if two states of `get_rng_state` are equal, so that nothing was drawn between them."""
    (torch_a, python_a, numpy_a), (torch_b, python_b, numpy_b) = first, second
    return torch.equal(torch_a, torch_b) and python_a == python_b and all(map(np.array_equal, numpy_a, numpy_b))


def _set_rng_state(states: tuple[Any, Any, Any]) -> None:
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])
