"""Executors: they train models on this machine or on a Ray cluster."""

from typing import Literal

from .executors.executor import Executor, WorkerError
from .executors.local import Local
from .executors.ray_executor import Ray
from .executors.ray_init import EngineError

__all__ = ["Engine", "EngineError", "Executor", "Local", "Ray", "WorkerError", "make_engine", "named"]

Engine = Executor
"""Former name of `Executor`."""


def make_engine(
    name: Literal["local", "ray"] = "local",
    *,
    address: str | None = None,
    processes: int | None = None,
    memory: float | None = None,
    cpus: float | None = None,
    gpus: float | None = None,
) -> Executor:
    """Create an executor by name.

    Args:
        name: `"local"` for this machine, or `"ray"` for a Ray cluster.
        address: address of the cluster; see `Ray` for the default.
        processes: maximum number of stacks trained at the same time.
        memory: memory limit in GB: in total on this machine, per stack on a cluster.
        cpus: number of CPU cores per stack on a cluster.
        gpus: number of GPUs per stack on a cluster, or a fraction of one GPU.

    Raises:
        ValueError: if a value is out of range, or if an option of a cluster is given with `"local"`.
        EngineError: if Ray is not installed, or no cluster answers at the address.
    """
    if name == "ray":
        return Ray(address, processes=processes, memory=memory, cpus=cpus, gpus=gpus)
    for option, value in (("address", address), ("cpus", cpus), ("gpus", gpus)):
        if value is not None:
            raise ValueError(
                f"{option} = {value}: this option is for a Ray cluster. Select one (--engine ray), or leave it out."
            )
    return Local(processes, memory)


named = make_engine
"""Former name of `make_engine`."""
