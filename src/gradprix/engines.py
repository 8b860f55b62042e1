"""Where networks are trained: on this machine, or on a Ray cluster."""

from typing import Literal

from .executors.executor import Engine, WorkerError
from .executors.local import Local
from .executors.ray_executor import Ray
from .executors.ray_init import EngineError

__all__ = ["Engine", "EngineError", "Local", "Ray", "WorkerError", "named"]


def named(
    name: Literal["local", "ray"] = "local",
    *,
    address: str | None = None,
    processes: int | None = None,
    memory: float | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
) -> Engine:
    """An engine by its name, as the command line has it.

    Args:
        name: `"local"` or `"ray"`.
        address: where the Ray cluster is.
        processes: lanes at once at most.
        memory: GB, for the whole race on this machine, for each lane on a cluster.
        cpus: cores for each lane on a cluster.
        gpus: GPUs for each lane on a cluster, or a part of one.

    Raises:
        ValueError: for numbers that are impossible, or mean nothing here.
        EngineError: when there is no such cluster.
    """
    if name == "ray":
        return Ray(address, processes=processes, memory=memory, cpus=cpus, gpus=gpus)
    for flag, value in (("address", address), ("cpus", cpus), ("gpus", gpus)):
        if value is not None:
            raise ValueError(f"{flag} = {value}: it is for a Ray cluster (--engine ray).")
    return Local(processes, memory)
