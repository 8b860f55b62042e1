"""Copies of a task's examples on the training device."""

from copy import copy
from weakref import WeakKeyDictionary

import torch

from gradprix.tasks import Data
from gradprix.tasks.lazy_dataset import Stream
from gradprix.utils.devices import free, placed

COPIES: WeakKeyDictionary[Data, dict[torch.device, Data]] = WeakKeyDictionary()
"""Maps examples to their copies by device. The copies are not attributes of the examples, which are part of a task's
identity."""


def to_device(data: Data, device: torch.device) -> Data:
    """Return a copy of the examples on a device; the copy is made once and cached.

    Args:
        data: all examples of a task.
        device: the target device.

    Returns:
        The copy, or `data` itself if the device is the CPU, if the examples are streamed, or if they need more than
        half of the device's free memory.
    """
    if device.type == "cpu" or isinstance(data, Stream) or 2 * data.nbytes > free(str(device)):
        return data
    copies = COPIES.setdefault(data, {})
    if device not in copies:
        copies[device] = copy(data)
        copies[device].inputs, copies[device].targets = placed((data.inputs, data.targets), device)
    return copies[device]
