"""State of a Ray cluster: its machines, and the code and problems that have been sent to them."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gradprix.training.provenance import provenance, versions

from .executor import ExecutablePlan, WorkerError
from .ray_init import EngineError, connect, find_cluster, has_joined_here, job_id
from .serialization import Places, call, folders, packed, project, with_examples
from .worker_processes import environment

MACHINES_CACHED = 2.0
"""Seconds for which the list of machines is cached."""
EMPTY = 300.0
"""Seconds that a race waits for a worker if there is none, since machines may be starting."""
MACHINE_SHARE = 0.5
"""Fraction of a machine's memory that a race may take, unless a limit per stack is given."""
LOST = (
    "the workers of the cluster were lost again and again, with their machines, or because memory ran out ({why}). "
    "Finished training runs are saved; run the same command to resume. Give each stack more with --memory, in GB."
)


@dataclass(frozen=True)
class Resources:
    """Resources that a stack requests on a cluster.

    Args:
        cpus: number of CPU cores; a stack computes on one core.
        gpus: number of GPUs, or a fraction of one GPU.
        memory: memory in GB; if None, half of the machine's memory is divided equally among its stacks.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: float | None = None

    def __post_init__(self) -> None:
        if not (self.cpus > 0 and self.gpus >= 0 and (self.memory is None or self.memory > 0)):
            raise ValueError(f"{self}: a stack needs more than 0 CPUs and GB of memory, and 0 GPUs or more.")

    def room(self, resources: Mapping[str, float]) -> int:
        """Return the number of stacks that fit on a machine, given its resources by Ray's names."""
        amounts = {"CPU": self.cpus, "GPU": self.gpus, "memory": (self.memory or 0) * 1e9}
        return math.floor(min(resources.get(name, 0) / amount for name, amount in amounts.items() if amount) + 1e-9)

    @property
    def options(self) -> dict[str, Any]:
        """The resources as options of a Ray task."""
        options = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        return options if self.memory is None else {**options, "memory": int(self.memory * 1e9)}

    def __str__(self) -> str:
        gpus = f", {self.gpus:g} GPUs" if self.gpus else ""
        return f"{self.cpus:g} CPUs{gpus}" + ("" if self.memory is None else f", {self.memory:g} GB")


class Cluster:
    """A Ray cluster.

    Args:
        address: address of the cluster, as in `Ray`.
        asked: resources of each stack that the user has set, by names of `Resources`.
        processes: maximum number of stacks at the same time; None for as many as fit on the machines.
        folder: folder that is copied to each machine; None for the folder of the user's code.

    Raises:
        EngineError: if Ray is not installed, or no cluster answers at the address.
    """

    def __init__(
        self, address: str | None, asked: Mapping[str, float], processes: int | None, folder: Path | None
    ) -> None:
        self.asked, self.processes, self.folder = asked, processes, folder
        self.needs = Resources(**asked)
        self.place = find_cluster(address)
        self.kinds: list[str] = []
        self.progress_queue: Any = None
        self._nodes: list[Mapping[str, float]] = []
        self._places: Places = {}
        self._paths: list[str] = []
        self._code: set[Path] = set()
        self._job: str | None = None
        self._refreshed = self._workers_seen = 0.0

    @property
    def workers(self) -> int:
        """The number of stacks that can run at the same time."""
        self.refresh()
        return sum(self.needs.room(node) for node in self._nodes) if self.processes is None else self.processes

    @property
    def smallest(self) -> tuple[int, float]:
        """Number of stacks that fit on the machine with the least memory per stack, and their total memory in bytes."""
        while not (nodes := [node for node in self._nodes if self.needs.room(node)]):
            time.sleep(MACHINES_CACHED)  # machines may be starting
            self.refresh()
        node = min(nodes, key=lambda node: node["memory"] / self.needs.room(node))
        return self.needs.room(node), MACHINE_SHARE * node["memory"]

    def refresh(self, first: bool = False) -> None:
        """Update the list of machines, unless it was updated a moment ago.

        Args:
            first: True for the first update after the connection.

        Raises:
            EngineError: if `first` is True, no machine has room for a stack, and the number of processes is not set.
            WorkerError: if the cluster has had no worker for a long time.
        """
        import ray

        now = time.monotonic()
        if not ray.is_initialized() or now < self._refreshed + MACHINES_CACHED:
            return
        self._refreshed = now
        self._nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any(self.needs.room(node) for node in self._nodes):
            self._workers_seen = now
        elif first and self.processes is None:
            largest = max(self._nodes, key=lambda node: node.get("CPU", 0), default={})
            resources = (
                f"{largest.get('CPU', 0):g} CPUs, {largest.get('GPU', 0):g} GPUs, "
                f"{largest.get('memory', 0) / 1e9:.3g} GB"
            )
            raise EngineError(f"no machine of the cluster has {self.needs} for a stack; the largest has {resources}.")
        elif now > self._workers_seen + EMPTY:
            raise WorkerError(f"there has been no worker in the cluster for {EMPTY / 60:.0f} minutes.")

    def join(self, args: Sequence[Any], busy: bool) -> None:
        """Connect to the cluster and send it the user's code, unless it is connected and has the code already.

        Args:
            args: plans, problems and trials whose code is needed.
            busy: True if stacks are running on the cluster.

        Raises:
            EngineError: if the connection fails, or if other code would have to be sent while stacks are running.
        """
        plans = [arg for arg in args if isinstance(arg, ExecutablePlan)]
        parts = [part for plan in plans for part in (plan.task, [entry.rule for entry in plan.entries])]
        code = {*self._code, *folders(*parts, *(arg for arg in args if not isinstance(arg, ExecutablePlan)))}
        if self._job is not None and self._job == job_id() and code == self._code:
            return
        if busy:
            raise EngineError("a race with other code is under way on this engine. Give each an engine of its own.")
        for plan in plans:
            gpus = 0.0 if plan.device in ("auto", "cpu") else 1.0
            self.needs = Resources(**{"gpus": gpus, **plan.task.needs, **self.asked})
        try:
            shared = self.folder or project(sorted(code))
        except ValueError as error:
            if self.place is not None:
                raise EngineError(str(error)) from error
            shared = None  # nothing is copied, since all paths are valid on this machine
        connect(self.place, shared, self.processes and math.ceil(self.processes * self.needs.cpus))
        self._job, self._code, self._places = job_id(), code, {}
        is_copied = self.place is not None and shared is not None and has_joined_here()
        self._paths = [
            str(path.relative_to(shared) if is_copied and shared and path.is_relative_to(shared) else path)
            for path in sorted(code)
        ]
        self._refreshed, self._workers_seen = 0.0, time.monotonic()
        self.refresh(first=True)
        self._check_machines()
        from ray.util.queue import Queue

        self.progress_queue = Queue(actor_options={"num_cpus": 0, "max_restarts": -1})

    def get_result(self, answer: Any) -> Any:
        """Return the result of a Ray task or, if the task failed, an exception that explains the failure."""
        import ray

        try:
            return ray.get(answer)
        except ray.exceptions.RayError as error:
            return self.explain_error(error)

    def explain_error(self, error: Any) -> Exception:
        """Return the cause of an error of Ray: the exception raised by the code, or a `WorkerError` for a lost worker.

        Raises:
            EngineError: if the cluster's machines cannot set up their environment.
        """
        import ray

        if isinstance(error, ray.exceptions.RayTaskError):
            return error.cause if isinstance(error.cause, Exception) else error
        message = str(error).strip().splitlines()[0]
        if isinstance(error, ray.exceptions.RuntimeEnvSetupError):
            raise EngineError(f"the cluster's machines cannot get ready: {message}") from error
        return WorkerError(LOST.format(why=f"{type(error).__name__}: {message}"))

    def pack_call(self, function: Callable[..., Any], args: Sequence[Any]) -> tuple[bytes, Places, list[str], str]:
        """Serialize a call and send its problems to the cluster, each of them only once.

        Returns:
            The first four arguments of `serialization.call`.
        """
        import ray

        packed_call, problems = packed(function, args)
        for key, problem in problems.items():
            if key not in self._places:
                self._places[key] = [ray.put(with_examples(problem))]
        return packed_call, {key: self._places[key] for key in problems}, self._paths, versions()

    def remote(self, function: Callable[..., Any], **overrides: Any) -> Any:
        """Return a function as a Ray task with the resources of a stack, which Ray does not retry.

        Args:
            function: the function.
            **overrides: options of the Ray task that differ.
        """
        options = {**self.needs.options, "max_retries": 0, "runtime_env": {"env_vars": environment()}, **overrides}
        return _ray_function(function).options(**options)

    def _check_machines(self) -> None:
        """Check the library versions of all machines that have room for a stack, and collect their processor types.

        Raises:
            EngineError: if a machine has other versions than this process, or fails to answer.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and self.needs.room(node["Resources"])]
        packed_call = self.pack_call(provenance, ())
        pending = [
            self.remote(
                call,
                num_cpus=0,
                num_gpus=0,
                memory=None,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            ).remote(*packed_call)
            for node in nodes
        ]
        results: list[Any] = [self.get_result(each) for each in pending]
        for error in results:
            if isinstance(error, EngineError):
                raise error
            if isinstance(error, Exception) and not isinstance(error, WorkerError):
                raise EngineError(f"gradprix does not work on every machine of the cluster: {error}") from error
        # Machines whose result is not a string have left the cluster meanwhile.
        self.kinds = sorted({each for each in results if isinstance(each, str)})


@cache
def _ray_function(function: Callable[..., Any]) -> Any:
    """Return a function as a remote function of Ray; cached, since a cluster stores every new remote function."""
    import ray

    return ray.remote(function)
