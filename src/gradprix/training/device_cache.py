"""A task's examples where its networks are."""

from copy import copy
from weakref import WeakKeyDictionary

import torch

from gradprix.tasks import Data
from gradprix.tasks.lazy_dataset import Stream
from gradprix.utils.devices import free, placed

THERE: WeakKeyDictionary[Data, dict[torch.device, Data]] = WeakKeyDictionary()
"""Copies of examples on devices: not with the examples themselves, which are part of what a task is."""


def near(data: Data, device: torch.device) -> Data:
    """A copy of the examples on a device, put there once; these where half of what is free there is too little.

    Args:
        data: all examples of a task.
        device: where they are wanted.
    """
    if device.type == "cpu" or isinstance(data, Stream) or 2 * data.nbytes > free(str(device)):
        return data
    copies = THERE.setdefault(data, {})
    if device not in copies:
        copies[device] = copy(data)
        copies[device].inputs, copies[device].targets = placed((data.inputs, data.targets), device)
    return copies[device]
