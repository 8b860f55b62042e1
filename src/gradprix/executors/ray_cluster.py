"""A Ray cluster as races know it: which machines there are, and what has been sent to them."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gradprix.training.provenance import provenance, versions

from .executor import RacePlan, WorkerError
from .ray_init import EngineError, connect, found, job, ours
from .serialization import Places, call, folders, packed, project, with_examples
from .worker_processes import environment

FRESH = 2.0
"""Seconds for which what is known of the machines holds."""
EMPTY = 300.0
"""Seconds that a race waits when no worker is left: machines may be on their way."""
SHARE = 0.5
"""Of a machine's memory that a race may take, unless it is said how much a lane may."""
LOST = (
    "the workers of the cluster were lost again and again, with their machines, or because memory ran out ({why}). "
    "What is finished is kept; the same command goes on from there. Give each lane more with --memory, in GB."
)


@dataclass(frozen=True)
class Needs:
    """What a lane takes of a machine.

    Args:
        cpus: cores; a lane computes on one.
        gpus: GPUs, or a part of one.
        memory: GB; an even part of half of the machine's when None.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: float | None = None

    def __post_init__(self) -> None:
        if not (self.cpus > 0 and self.gpus >= 0 and (self.memory is None or self.memory > 0)):
            raise ValueError(f"{self}: a lane needs more than 0 cpus and GB of memory, and no fewer than 0 gpus.")

    def room(self, resources: Mapping[str, float]) -> int:
        """How many lanes a machine has room for."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": (self.memory or 0) * 1e9}
        return math.floor(min(resources.get(name, 0) / each for name, each in wanted.items() if each) + 1e-9)

    @property
    def options(self) -> dict[str, Any]:
        """The same for Ray."""
        asked = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        return asked if self.memory is None else {**asked, "memory": int(self.memory * 1e9)}

    def __str__(self) -> str:
        gpus = f", {self.gpus:g} GPUs" if self.gpus else ""
        return f"{self.cpus:g} CPUs{gpus}" + ("" if self.memory is None else f", {self.memory:g} GB")


class Cluster:
    """A Ray cluster.

    Args:
        address: where it is, as in `Ray`.
        asked: what every lane takes, as far as the user has said so.
        processes: lanes at once at most.
        folder: what each machine gets a copy of.

    Raises:
        EngineError: when Ray is not installed, or no cluster answers.
    """

    def __init__(
        self, address: str | None, asked: Mapping[str, float], processes: int | None, folder: Path | None
    ) -> None:
        self.asked, self.processes, self.folder = asked, processes, folder
        self.needs = Needs(**asked)
        self.place = found(address)
        self.kinds: list[str] = []
        self.said: Any = None
        self._nodes: list[Mapping[str, float]] = []
        self._places: Places = {}
        self._paths: list[str] = []
        self._code: set[Path] = set()
        self._job: str | None = None
        self._looked = self._seen = 0.0

    @property
    def workers(self) -> int:
        """How many lanes can run at once."""
        self.look()
        return sum(self.needs.room(node) for node in self._nodes) if self.processes is None else self.processes

    @property
    def smallest(self) -> tuple[int, float]:
        """How many lanes the machine has room for on which each has least memory, and how much memory they have."""
        while not (nodes := [node for node in self._nodes if self.needs.room(node)]):
            time.sleep(FRESH)  # machines may be on their way
            self.look()
        node = min(nodes, key=lambda node: node["memory"] / self.needs.room(node))
        return self.needs.room(node), SHARE * node["memory"]

    def look(self, first: bool = False) -> None:
        """Find out what machines there are, unless that is known.

        Raises:
            EngineError: when none has room for a lane at first, and none is to be added.
            WorkerError: when there has been none for long.
        """
        import ray

        now = time.monotonic()
        if not ray.is_initialized() or now < self._looked + FRESH:
            return
        self._looked = now
        self._nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any(self.needs.room(node) for node in self._nodes):
            self._seen = now
        elif first and self.processes is None:
            most = max(self._nodes, key=lambda node: node.get("CPU", 0), default={})
            has = f"{most.get('CPU', 0):g} CPUs, {most.get('GPU', 0):g} GPUs, {most.get('memory', 0) / 1e9:.3g} GB"
            raise EngineError(f"no machine of the cluster has {self.needs} for a lane; the largest has {has}.")
        elif now > self._seen + EMPTY:
            raise WorkerError(f"there has been no worker in the cluster for {EMPTY / 60:.0f} minutes.")

    def join(self, args: Sequence[Any], busy: bool) -> None:
        """Get to the cluster with the code of what is to be done, unless that has been done.

        Args:
            args: plans, problems and trials.
            busy: whether something is under way there.

        Raises:
            EngineError: when it does not work.
        """
        plans = [arg for arg in args if isinstance(arg, RacePlan)]
        parts = [part for plan in plans for part in (plan.task, [entry.rule for entry in plan.entries])]
        code = {*self._code, *folders(*parts, *(arg for arg in args if not isinstance(arg, RacePlan)))}
        if self._job is not None and self._job == job() and code == self._code:
            return
        if busy:
            raise EngineError("a race with other code is under way on this engine. Give each an engine of its own.")
        for plan in plans:
            gpus = 0.0 if plan.device in ("auto", "cpu") else 1.0
            self.needs = Needs(**{"gpus": gpus, **plan.task.needs, **self.asked})
        try:
            shared = self.folder or project(sorted(code))
        except ValueError as error:
            if self.place is not None:
                raise EngineError(str(error)) from error
            shared = None  # on this machine everything is where it is
        connect(self.place, shared, self.processes and math.ceil(self.processes * self.needs.cpus))
        self._job, self._code, self._places = job(), code, {}
        sent = self.place is not None and shared is not None and ours()
        self._paths = [
            str(path.relative_to(shared) if sent and shared and path.is_relative_to(shared) else path)
            for path in sorted(code)
        ]
        self._looked, self._seen = 0.0, time.monotonic()
        self.look(first=True)
        self._same_everywhere()
        from ray.util.queue import Queue

        self.said = Queue(actor_options={"num_cpus": 0, "max_restarts": -1})

    def came_of(self, answer: Any) -> Any:
        """What was answered, or why it was not."""
        import ray

        try:
            return ray.get(answer)
        except ray.exceptions.RayError as error:
            return self.why(error)

    def why(self, error: Any) -> Exception:
        """What an error of Ray's is about: the code that ran, or who ran it."""
        import ray

        if isinstance(error, ray.exceptions.RayTaskError):
            return error.cause if isinstance(error.cause, Exception) else error
        what = str(error).strip().splitlines()[0]
        if isinstance(error, ray.exceptions.RuntimeEnvSetupError):
            raise EngineError(f"the cluster's machines cannot get ready: {what}") from error
        return WorkerError(LOST.format(why=f"{type(error).__name__}: {what}"))

    def sent(self, function: Callable[..., Any], args: Sequence[Any]) -> tuple[bytes, Places, list[str], str]:
        """A call as workers get it; the problems in it go to the cluster once, and no more."""
        import ray

        packed_, problems = packed(function, args)
        for key, problem in problems.items():
            if key not in self._places:
                self._places[key] = [ray.put(with_examples(problem))]
        return packed_, {key: self._places[key] for key in problems}, self._paths, versions()

    def remote(self, function: Callable[..., Any], **more: Any) -> Any:
        """A function as Ray runs it, once."""
        options = {**self.needs.options, "max_retries": 0, "runtime_env": {"env_vars": environment()}, **more}
        return _known(function).options(**options)

    def _same_everywhere(self) -> None:
        """Find out of what kinds the machines are that have room for a lane.

        Raises:
            EngineError: when one has other versions than this, or cannot say.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and self.needs.room(node["Resources"])]
        sent = self.sent(provenance, ())
        asked = [
            self.remote(
                call,
                num_cpus=0,
                num_gpus=0,
                memory=None,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            ).remote(*sent)
            for node in nodes
        ]
        made: list[Any] = [self.came_of(each) for each in asked]
        for error in made:
            if isinstance(error, EngineError):
                raise error
            if isinstance(error, Exception) and not isinstance(error, WorkerError):
                raise EngineError(f"gradprix does not work on every machine of the cluster: {error}") from error
        self.kinds = sorted({each for each in made if isinstance(each, str)})  # the others are gone meanwhile


@cache
def _known(function: Callable[..., Any]) -> Any:
    """A function that Ray knows: made anew for each call, each would be another to the cluster, which keeps all."""
    import ray

    return ray.remote(function)
