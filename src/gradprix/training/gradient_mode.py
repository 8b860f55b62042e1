"""Models that differentiate in their forward pass, such as energy models and physics-informed networks.

They fail without gradients, so they are evaluated with gradients enabled.
"""

from functools import lru_cache
from operator import itemgetter

import torch
from torch.utils._pytree import tree_map

from gradprix.tasks import Task
from gradprix.tasks.rng import RngState, init_model
from gradprix.tasks.task import called_with

TRIED = 2
"""Number of examples in the trial batch."""


@lru_cache(maxsize=64)
def needs_gradients(task: Task) -> bool:
    """Return True if the model or loss works only with gradients enabled, tested by one batch in each mode."""
    model = init_model(task.model, 0).eval()
    inputs, targets = tree_map(itemgetter(0), task.loaded.take(task.loaded.split(0).valid[:TRIED][None]))
    args, kwargs = called_with(inputs)
    for enabled in (False, True):
        try:
            with RngState(torch.Generator()), torch.set_grad_enabled(enabled):
                task.loss(model(*args, **kwargs), targets)
        except RuntimeError:  # torch's, for a tensor without a gradient
            continue
        except Exception:
            return False
        return enabled
    return False
