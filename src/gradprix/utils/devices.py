"""Device placement of tensors: the CPU, or another device that torch supports, such as a GPU.

No device is initialized on import, so a process that only plans a race never starts one.
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
    """Raise `ValueError` unless the name is `"auto"` or a device name that torch knows."""
    try:
        torch.device("cpu" if name == "auto" else name)
    except RuntimeError:
        raise ValueError(
            f'device = {name!r}: it must be "auto", "cpu", "cuda", "cuda:1", "mps" or another device that torch knows.'
        ) from None


def accelerator_type() -> str | None:
    """Return the type of torch's accelerator on this machine, or None if there is only the CPU."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return None if accelerator is None else accelerator.type


def require(name: str) -> None:
    """Raise `ValueError`, listing the available devices, if a device is not available."""
    device, kind = torch.device(name), accelerator_type()
    count = 0 if kind is None else torch.accelerator.device_count()
    if device.type != "cpu" and not (device.type == kind and (device.index or 0) < count):
        seen = " and ".join(f"{kind}:{i}" for i in range(count)) or "no GPU"
        raise ValueError(
            f"device = {name!r}: torch {torch.__version__} finds {seen} where models are trained. Choose an available "
            "device, install a torch build for yours (https://pytorch.org/get-started), or train on the CPU "
            "(--device cpu)."
        )


def describe_device(name: str) -> str:
    """Return the name of a device, with the vendor's name if torch knows it.

    Raises:
        ValueError: if the device is not available.
    """
    require(name)
    get_name = getattr(torch.get_device_module(torch.device(name).type), "get_device_name", None)
    return name if get_name is None else f"{name} {get_name(name)}"


def free(name: str) -> float:
    """Return the free memory in bytes: the device's, or the machine's if the device has no memory of its own."""
    get_memory_info = getattr(torch.get_device_module(torch.device(name).type), "mem_get_info", None)
    return float(psutil.virtual_memory().available if get_memory_info is None else get_memory_info(name)[0])


def placed(value: Any, device: torch.device) -> Any:
    """Move a tensor or a nested structure of tensors to a device; tensors on the device are not copied."""
    # CUDA reads the source before the call returns, so the copy may be asynchronous in this direction only.
    is_async = device.type == "cuda"
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=is_async)
    return tree_map_only(Tensor, lambda x: x.to(device, non_blocking=is_async), value)


def wait(device: torch.device) -> None:
    """Wait until a device has finished its queued work. Call this before reading the clock."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextlib.contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Temporarily make a GPU compute in full precision and, where torch has them, with deterministic algorithms."""
    if device.type == "cpu":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, cuBLAS sums in a varying order
    algorithms_before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # a debugging aid that costs time
    cudnn_enabled = torch.backends.cudnn.enabled
    try:
        with torch.backends.cudnn.flags(enabled=cudnn_enabled, deterministic=True, allow_tf32=False):
            yield
    finally:
        memory.fill_uninitialized_memory = fills
        torch.use_deterministic_algorithms(algorithms_before[0], warn_only=algorithms_before[1])
