"""Activation checkpointing in a recorded step: checkpointed functions run once, and their activations are kept.

A recorded step has a memory plan of its own. The second forward pass, during the backward pass, would record the same
operations again. Random numbers are drawn once in both cases, since torch restores its generator for the second pass.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_batchedtensor
from torch.utils import checkpoint


class _ReentrantCheckpoint:
    """Replacement of `torch.utils.checkpoint.CheckpointFunction`."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        """Call the function; as in torch, there are no gradients unless an argument requires them."""
        needs_gradients = any(_requires_grad(x) for x in args if isinstance(x, Tensor))
        with torch.set_grad_enabled(torch.is_grad_enabled() and needs_gradients):
            return function(*args)


def _nonreentrant_checkpoint(*args: Any, **kwargs: Any) -> Iterator[None]:
    """Replace torch's generator that saves no activations; `checkpoint` calls the function while it is suspended."""
    yield


@contextlib.contextmanager
def without_checkpointing() -> Iterator[None]:
    """Temporarily let `torch.utils.checkpoint.checkpoint` call its function without recomputation.

    Libraries hold references to `checkpoint`, so this context manager replaces what `checkpoint` calls.
    """
    replacements = {
        "CheckpointFunction": _ReentrantCheckpoint,
        "_checkpoint_without_reentrant_generator": _nonreentrant_checkpoint,
    }
    originals = {name: getattr(checkpoint, name) for name in replacements}
    vars(checkpoint).update(replacements)
    try:
        yield
    finally:
        vars(checkpoint).update(originals)


def _requires_grad(x: Tensor) -> bool:
    while is_batchedtensor(x):  # within `vmap`, the stack requires gradients, not the model's part of it
        x = get_unwrapped(x)
    return x.requires_grad
