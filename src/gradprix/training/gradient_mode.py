"""Models that differentiate as they run, such as energy models and physics-informed networks.

Without gradients they fail, so they are evaluated with gradients.
"""

from functools import lru_cache
from operator import itemgetter

import torch
from torch.utils._pytree import tree_map

from gradprix.tasks import Task
from gradprix.tasks.rng import Luck, fresh
from gradprix.tasks.task import called_with

TRIED = 2
"""Examples that it is found out with."""


@lru_cache(maxsize=64)
def needs_gradients(task: Task) -> bool:
    """Whether model or loss work with gradients only, found out by a batch without them and one with them."""
    model = fresh(task.model, 0).eval()
    inputs, targets = tree_map(itemgetter(0), task.loaded.take(task.loaded.split(0).valid[:TRIED][None]))
    args, kwargs = called_with(inputs)
    for enabled in (False, True):
        try:
            with Luck(torch.Generator()), torch.set_grad_enabled(enabled):
                task.loss(model(*args, **kwargs), targets)
        except RuntimeError:  # torch's, for a tensor that has no gradient
            continue
        except Exception:
            return False
        return enabled
    return False
