"""Where tensors are: on the CPU, or on another device that torch has, such as a GPU.

Nothing asks for a device before it is called, so that a process that only plans a race never starts one.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

CPU = torch.device("cpu")


def check_name(name: str) -> None:
    """Raise ValueError for what is no device of torch's, nor "auto"."""
    try:
        torch.device("cpu" if name == "auto" else name)
    except RuntimeError:
        raise ValueError(
            f'device = {name!r}: it must be "auto", "cpu", "cuda", "cuda:1", "mps" or another that torch knows.'
        ) from None


def found() -> str | None:
    """The device that torch has here besides the CPU."""
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return None if there is None else there.type


def require(name: str) -> None:
    """Raise ValueError, saying what there is, for a device that is not here."""
    device, kind = torch.device(name), found()
    count = 0 if kind is None else torch.accelerator.device_count()
    if device.type != "cpu" and not (device.type == kind and (device.index or 0) < count):
        seen = " and ".join(f"{kind}:{i}" for i in range(count)) or "no GPU"
        raise ValueError(
            f"device = {name!r}: torch {torch.__version__} sees {seen} where networks are trained. Take one that is "
            "there, install a torch that is built for yours (https://pytorch.org/get-started), or train on the CPU "
            "(--device cpu)."
        )


def named(name: str) -> str:
    """A device with its maker's name for it, as far as torch knows one.

    Raises:
        ValueError: when it is not there.
    """
    require(name)
    ask = getattr(torch.get_device_module(torch.device(name).type), "get_device_name", None)
    return name if ask is None else f"{name} {ask(name)}"


def free(name: str) -> float:
    """Bytes of memory that nobody has taken, of the device or, where it has none of its own, of this machine."""
    ask = getattr(torch.get_device_module(torch.device(name).type), "mem_get_info", None)
    return float(psutil.virtual_memory().available if ask is None else ask(name)[0])


def placed(value: Any, device: torch.device) -> Any:
    """A tensor, or what is made of tensors, on a device; itself where it is there."""
    # CUDA has read what it is given before it answers, wherever its own work is.
    ahead = device.type == "cuda"
    return tree_map_only(Tensor, lambda x: x.to(device, non_blocking=ahead), value)


def wait(device: torch.device) -> None:
    """Wait until a device has done what it was given: to be called before looking at the clock."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextlib.contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Have a GPU compute in full precision and, where torch knows how, in the same order each time."""
    if device.type == "cpu":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS, which else adds up in any order
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # for finding mistakes; it takes time
    on = torch.backends.cudnn.enabled
    try:
        with torch.backends.cudnn.flags(enabled=on, deterministic=True, allow_tf32=False):
            yield
    finally:
        memory.fill_uninitialized_memory = fills
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
