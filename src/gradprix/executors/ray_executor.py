"""Lanes on a Ray cluster.

Ray places them, and says when a worker or a machine is gone; what is then done again is planned here, as for any other
engine. The process that has the race alone writes its journal.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from gradprix.tasks import Task
from gradprix.text.answer import counted
from gradprix.training.autotune import Shape, shape
from gradprix.training.model_stack import Form
from gradprix.training.trial import Trial
from gradprix.utils.devices import describe_device, free

from .executor import Engine, Found, RacePlan, WorkerError, train
from .ray_cluster import SHARE, Cluster
from .ray_init import EngineError
from .scheduler import LOSSES, Part
from .serialization import call, lane

REPORTS = 100.0
"""What workers say of how far they are, a second, all together at most."""


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
        given = {name: value for name, value in asked.items() if value is not None}
        self.cluster = Cluster(address, given, processes, None if folder is None else Path(folder).resolve())
        self._jobs: dict[Any, Part] = {}
        self._over, self._unfit = False, list[EngineError]()

    @property
    def workers(self) -> int:
        """How many lanes can run at once."""
        return self.cluster.workers

    @property
    def place(self) -> str:
        """How many workers there are."""
        return counted(self.workers, "worker")

    @property
    def state(self) -> str:
        """Workers, and networks that are being trained, and were lost with theirs."""
        running = sum(len(part.trials) for part in self.schedule.running)
        lost = f", {self.schedule.lost:,} lost" if self.schedule.lost else ""
        return f" on {self.place}, {running:,} running{lost}"

    def shape(self, task: Task, trials: Sequence[Trial], how: Form) -> Shape:
        """As many networks in a lane as pay, and fit into its part of the smallest machine."""
        with self._lock:
            self._join(task, trials)
        needs = self.cluster.needs
        if how.device == "cpu":
            room, most = self.cluster.smallest
        else:
            room, most = 1, SHARE * min(1.0, needs.gpus or 1.0) * self.ask(free, how.device)
        memory = most if needs.memory is None else needs.memory * 1e9 * room
        return shape(task, trials, how, room, memory, self.everywhere)

    def made(self, plan: RacePlan, device: str) -> str:
        """What numbers depend on besides their plan: the kind of machine, or all kinds where there are several."""
        with self._lock:
            self._join(plan)
        kinds = " or ".join(self.cluster.kinds)
        return kinds if device == "cpu" else f"{kinds}, {self.ask(describe_device, device)}"

    def everywhere(self, count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What a function answers in so many workers at once."""
        import ray

        with self._lock:
            self._join(*args)
            sent = self.cluster.sent(function, args)
        for death in range(LOSSES):
            try:
                return list(ray.get([self.cluster.remote(call).remote(*sent) for _ in range(count)]))
            except ray.exceptions.RayError as error:
                why = self.cluster.why(error)
                if not isinstance(why, WorkerError) or death + 1 == LOSSES:
                    raise why from error
        return []

    def side_by_side(self, do: Callable[[Any], Any], each: Sequence[Any]) -> list[Any]:
        """What a function that runs a race makes of each plan, all at once: while one waits, others have work."""
        with self._lock:
            self._join(*each)
        try:
            with ThreadPoolExecutor(max(1, len(each))) as threads:
                jobs = [threads.submit(do, one) for one in each]
                try:
                    for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                        job.result()
                except BaseException:
                    threads.shutdown(wait=False, cancel_futures=True)
                    self._over = True  # the others leave, too
                    raise
        finally:
            self._over = False
        return [job.result() for job in jobs]

    def _join(self, *args: Any) -> None:
        self.cluster.join(args, bool(self.schedule.running))

    def start(self, part: Part) -> None:
        """Have Ray find a worker for it."""
        task, how = part.work.about
        sent = self.cluster.sent(train, (task, part.trials, how))
        every = max(1.0, self.workers / REPORTS)
        self._jobs[self.cluster.remote(lane).remote(*sent, self.cluster.said, id(part), every)] = part

    def ended(self, seconds: float) -> list[tuple[Part, Found]]:
        """What has ended. A lane whose worker or machine is gone has, too."""
        import ray

        if self._over:
            raise WorkerError("the races beside it were given up.")
        if self._unfit:
            raise self._unfit.pop()
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
        ended = [(self._jobs.pop(job, None), self.cluster.came_of(job)) for job in jobs]
        # A machine has joined that must not take part: told when the others' work is kept.
        self._unfit = [found for _, found in ended if isinstance(found, EngineError)]
        return [(part, found) for part, found in ended if part is not None and not isinstance(found, EngineError)]

    def stop(self, parts: Sequence[Part]) -> None:
        """End what is under way, with the workers that are at it."""
        import ray

        for job in [job for job, part in self._jobs.items() if part in parts]:
            del self._jobs[job]
            with contextlib.suppress(ray.exceptions.RayError):
                ray.cancel(job, force=True)

    def _hear(self) -> None:
        """Learn how far what is under way has come."""
        import ray

        with self._lock:
            parts = {id(part): part for part in self._jobs.values()}
        with contextlib.suppress(ray.exceptions.RayError):  # it comes back with another machine, and is no loss
            for number, share in self.cluster.said.get_nowait_batch(self.cluster.said.qsize()):
                if number in parts:
                    parts[number].share = share
