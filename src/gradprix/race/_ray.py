"""Lanes on a Ray cluster.

Ray places them, and says when a worker or a machine is gone; what is then done again is planned here, as for any other
engine. The process that has the race alone writes its journal.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from gradprix._device import free, named
from gradprix.tasks import Task

from ._cluster import EngineError, Needs, connect, found, ours
from ._engine import Engine, Found, WorkerError, train
from ._local import environment
from ._network import Form
from ._parcel import Places, call, folders, lane, packed, project, with_examples
from ._plan import Plan, made_by
from ._schedule import LOSSES, Part
from ._trial import Outcome, Trial
from ._width import Shape, shape

FRESH = 2.0
"""Seconds for which what is known of the cluster's machines holds."""
EMPTY = 300.0
"""Seconds that a race waits when no worker is left: machines may be on their way."""
REPORTS = 100.0
"""What workers say of how far they are, a second, all together at most."""
SHARE = 0.5
"""Of a machine's memory that a race may take, unless it is said how much a lane may."""
LOST = (
    "the workers of the cluster were lost again and again, with their machines, or because memory ran out ({why}). "
    "What is finished is kept; the same command goes on from there. Give each lane more with --memory, in GB."
)


class Ray(Engine):
    """Lanes on a Ray cluster, or on this machine under Ray.

    Args:
        address: `HOST:PORT` of the cluster; `"auto"` for one that runs on this machine, `"local"` for a new one of this
            machine alone. When None, the one that `RAY_ADDRESS` names, or that runs on this machine, or a new one.
        processes: lanes at once at most; as many as the cluster's machines have room for when None.
        cpus: cores for each lane; what the task says, or one, when None.
        gpus: GPUs for each lane, or a part of one; what the task says, or none, when None.
        memory: GB for each lane; what the task says, or an even part of half of the machine's, when None.
        folder: what each machine gets a copy of, to find your code in; the folder it was imported from when None.

    Raises:
        EngineError: when Ray is not installed, or no cluster answers.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        processes: int | None = None,
        cpus: float | None = None,
        gpus: float | None = None,
        memory: float | None = None,
        folder: str | Path | None = None,
    ) -> None:
        super().__init__()
        if processes is not None and processes < 1:
            raise ValueError(f"processes = {processes}: it must be 1 or more.")
        asked = {"cpus": cpus, "gpus": gpus, "memory": memory}
        self.asked = {name: value for name, value in asked.items() if value is not None}
        self.needs = Needs(**self.asked)
        self.place, self.processes = found(address), processes
        self.folder = None if folder is None else Path(folder).resolve()
        self._jobs: dict[Any, Part] = {}
        self._places: Places = {}
        self._paths: list[str] = []
        self._code: set[Path] = set()
        self._job: str | None = None
        self._nodes: list[Mapping[str, float]] = []
        self._kinds: list[str] = []
        self._looked = self._seen = 0.0
        self._said: Any = None
        self._over = False

    @property
    def workers(self) -> int:
        """How many lanes can run at once."""
        self._look()
        room = sum(self.needs.room(node) for node in self._nodes)
        return room if self.processes is None else self.processes

    @property
    def state(self) -> str:
        """Workers, and networks that are being trained, and were lost with theirs."""
        running = sum(len(part.trials) for part in self.schedule.running)
        lost = f", {self.schedule.lost:,} lost" if self.schedule.lost else ""
        return f" on {self.workers:,} workers, {running:,} running{lost}"

    def shape(self, task: Task, trials: Sequence[Trial], how: Form) -> Shape:
        """As many networks in a lane as pay, and fit into its part of the smallest machine."""
        with self._lock:
            self._join(task, trials)
        if how.device == "cpu":
            while not (nodes := [node for node in self._nodes if self.needs.room(node)]):
                time.sleep(FRESH)  # machines may be on their way
                self._look()
            node = min(nodes, key=lambda node: node["memory"] / self.needs.room(node))
            room, most = self.needs.room(node), SHARE * node["memory"]
        else:
            room, most = 1, SHARE * min(1.0, self.needs.gpus or 1.0) * self.ask(free, how.device)
        memory = most if self.needs.memory is None else self.needs.memory * 1e9 * room
        return shape(task, trials, how, room, memory, self.everywhere)

    def made(self, plan: Plan, device: str) -> str:
        """What numbers depend on besides their plan: the kind of machine, or all kinds where there are several."""
        with self._lock:
            self._join(plan)
        kinds = " or ".join(self._kinds)
        return kinds if device == "cpu" else f"{kinds}, {self.ask(named, device)}"

    def everywhere(self, count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What a function answers in so many workers at once."""
        import ray

        with self._lock:
            self._join(*args)
            sent = self._sent(function, args)
        for death in range(LOSSES):
            try:
                return list(ray.get([self._remote(call).remote(*sent) for _ in range(count)]))
            except ray.exceptions.RayError as error:
                why = self._why(error)
                if not isinstance(why, WorkerError) or death + 1 == LOSSES:
                    raise why from error
        return []

    def side_by_side(self, do: Callable[[Plan], Any], each: Sequence[Plan]) -> list[Any]:
        """What a function that runs a race makes of each plan, all at once: while one waits, others have work."""
        with self._lock:
            self._join(*each)
        self._over = False
        with ThreadPoolExecutor(max(1, len(each))) as threads:
            jobs = [threads.submit(do, one) for one in each]
            try:
                for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                    job.result()
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                self._over = True  # the others leave, too
                raise
        return [job.result() for job in jobs]

    def start(self, part: Part) -> None:
        """Have Ray find a worker for it."""
        task, how = part.work.about
        sent = self._sent(train, (task, part.trials, how))
        every = max(1.0, self.workers / REPORTS)
        self._jobs[self._remote(lane).remote(*sent, self._said, id(part), every)] = part

    def ended(self, seconds: float) -> list[tuple[Part, Found]]:
        """What has ended. A lane whose worker or machine is gone has, too."""
        import ray

        if self._over:
            raise WorkerError("the races beside it were given up.")
        if not self._jobs:
            time.sleep(seconds)
            return []
        with self._lock:
            jobs = list(self._jobs)
        if ray.wait(jobs, timeout=seconds)[0]:
            jobs, _ = ray.wait(jobs, num_returns=len(jobs), timeout=0)
        else:
            jobs = []
        self._hear()
        ended = [(self._jobs.pop(job, None), self._came_of(job)) for job in jobs]
        return [(part, found) for part, found in ended if part is not None]

    def stop(self, parts: Sequence[Part]) -> None:
        """End what is under way, with the workers that are at it."""
        import ray

        for job in [job for job, part in self._jobs.items() if part in parts]:
            del self._jobs[job]
            with contextlib.suppress(ray.exceptions.RayError):
                ray.cancel(job, force=True)

    def _came_of(self, job: Any) -> Found:
        import ray

        try:
            outcomes: list[Outcome] = ray.get(job)
        except ray.exceptions.RayError as error:
            return self._why(error)
        return outcomes

    def _why(self, error: Any) -> Exception:
        """What an error of Ray's is about: the code that ran, or who ran it."""
        import ray

        if isinstance(error, ray.exceptions.RayTaskError):
            return error.cause if isinstance(error.cause, Exception) else error
        what = str(error).strip().splitlines()[0]
        if isinstance(error, ray.exceptions.RuntimeEnvSetupError):
            raise EngineError(f"the cluster's machines cannot get ready: {what}") from error
        return WorkerError(LOST.format(why=f"{type(error).__name__}: {what}"))

    def _hear(self) -> None:
        """Learn how far what is under way has come."""
        import ray

        with self._lock:
            parts = {id(part): part for part in self._jobs.values()}
        with contextlib.suppress(ray.exceptions.RayError):  # it comes back with another machine, and is no loss
            for number, share in self._said.get_nowait_batch(self._said.qsize()):
                if number in parts:
                    parts[number].share = share

    def _look(self, first: bool = False) -> None:
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

    def _join(self, *args: Any) -> None:
        """Get to the cluster with the code of what is to be done, unless that has been done."""
        plans = [arg for arg in args if isinstance(arg, Plan)]
        parts = [part for plan in plans for part in (plan.task, [entry.rule for entry in plan.entries])]
        code = {*self._code, *folders(*parts, *(arg for arg in args if not isinstance(arg, Plan)))}
        if self._job is not None and self._job == _job() and code == self._code:
            return
        if self.schedule.running:
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
        self._job, self._code, self._places = _job(), code, {}
        sent = self.place is not None and shared is not None and ours()
        self._paths = [
            str(path.relative_to(shared) if sent and shared and path.is_relative_to(shared) else path)
            for path in sorted(code)
        ]
        self._looked, self._seen = 0.0, time.monotonic()
        self._look(first=True)
        self._same_everywhere()
        from ray.util.queue import Queue

        self._said = Queue(actor_options={"num_cpus": 0, "max_restarts": -1})

    def _same_everywhere(self) -> None:
        """Find out of what kinds the machines are that have room for a lane.

        Raises:
            EngineError: when one has other versions than this, or cannot say.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and self.needs.room(node["Resources"])]
        ask = self._remote(call, num_cpus=0, num_gpus=0, memory=None)
        sent = self._sent(made_by, ())
        jobs = [ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(n, soft=False)) for n in nodes]
        made: list[Any] = [self._came_of(job) for job in [job.remote(*sent) for job in jobs]]
        if error := next((each for each in made if isinstance(each, Exception) and not _died(each)), None):
            raise EngineError(f"gradprix does not work on every machine of the cluster: {error}") from error
        self._kinds = sorted({each for each in made if isinstance(each, str)})  # the others are gone meanwhile
        mine = made_by().rpartition(", ")[0]
        if other := next((each for each in self._kinds if each.rpartition(", ")[0] != mine), None):
            raise EngineError(f"a machine of the cluster has {other}, and this one {made_by()}. Install the same.")

    def _sent(self, function: Callable[..., Any], args: Sequence[Any]) -> tuple[bytes, Places, list[str]]:
        """A call as workers get it; the problems in it go to the cluster once, and no more."""
        import ray

        call, problems = packed(function, args)
        for key, problem in problems.items():
            if key not in self._places:
                self._places[key] = [ray.put(with_examples(problem))]
        return call, {key: self._places[key] for key in problems}, self._paths

    def _remote(self, function: Callable[..., Any], **more: Any) -> Any:
        import ray

        options = {**self.needs.options, "max_retries": 0, "runtime_env": {"env_vars": environment()}, **more}
        return ray.remote(**options)(function)


def _job() -> str | None:
    """What Ray calls what this process is to it, since it joined."""
    import ray

    return str(ray.get_runtime_context().get_job_id()) if ray.is_initialized() else None


def _died(found: Any) -> bool:
    return isinstance(found, WorkerError)
