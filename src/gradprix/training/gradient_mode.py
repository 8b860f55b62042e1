"""Models that differentiate in their forward pass, such as energy models and physics-informed networks.

These models fail under `torch.no_grad`, so they are evaluated with gradients enabled.
"""

from functools import lru_cache
from operator import itemgetter

import torch
from torch.utils._pytree import tree_map

from gradprix.tasks import Task
from gradprix.tasks.rng import RngState, init_model
from gradprix.tasks.task import called_with

TEST_EXAMPLES = 2
"""Number of examples of the batch that a task is tested with."""


@lru_cache(maxsize=64)
def needs_gradients(task: Task) -> bool:
    """Return True if a task's model or loss works only with gradients enabled.

    This is tested with a small batch. The result is False if the code fails in both modes.
    """
    model = init_model(task.build, 0).eval()
    inputs, targets = tree_map(itemgetter(0), task.loaded.take(task.loaded.split(0).valid[:TEST_EXAMPLES][None]))
    args, kwargs = called_with(inputs)
    for enabled in (False, True):
        try:
            with RngState(torch.Generator()), torch.set_grad_enabled(enabled):
                task.loss_of(model)(model(*args, **kwargs), targets)
        except RuntimeError:  # torch's, for a tensor without a gradient
            continue
        except Exception:
            return False
        return enabled
    return False
