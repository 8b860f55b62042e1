"""Executor for stacks on a Ray cluster.

Ray places the stacks and reports lost workers and machines; retries are scheduled here, as for any other executor. Only
the process that runs the race writes its journal.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from gradprix.tasks import Task
from gradprix.training import StackLayout, choose_layout
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trial import Trial
from gradprix.utils.devices import describe_device, free
from gradprix.utils.wording import format_count

from .executor import ExecutablePlan, Executor, StackResult, WorkerError, train
from .ray_cluster import MACHINE_SHARE, Cluster
from .ray_init import EngineError
from .scheduler import LOSSES, TrialStack
from .serialization import call, run_stack

REPORTS = 100.0
"""Maximum number of progress reports per second from all workers together."""


class Ray(Executor):
    """Executor for stacks on a Ray cluster, or on this machine under Ray.

    Args:
        address: `HOST:PORT` of the cluster; `"auto"` for one that runs on this machine, `"local"` for a new one of this
            machine alone. When None, the one that `RAY_ADDRESS` names, or that runs on this machine, or a new one.
        processes: maximum number of stacks at the same time; as many as fit on the cluster's machines when None.
        cpus: CPU cores of each stack; the task's setting, or one, when None.
        gpus: GPUs of each stack, or a fraction of one; the task's setting, or none, when None.
        memory: GB of each stack; the task's setting, or an equal part of half of the machine's memory, when None.
        folder: the folder with your code, which each machine gets a copy of; the folder it was imported from when None.

    Raises:
        EngineError: if Ray is not installed, or no cluster answers.
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
        resources = {"cpus": cpus, "gpus": gpus, "memory": memory}
        requested = {name: value for name, value in resources.items() if value is not None}
        self.cluster = Cluster(address, requested, processes, None if folder is None else Path(folder).resolve())
        self._jobs: dict[Any, TrialStack] = {}
        self._is_cancelled, self._machine_errors = False, list[EngineError]()

    @property
    def workers(self) -> int:
        """The number of stacks that can run at the same time."""
        return self.cluster.workers

    @property
    def place(self) -> str:
        """The number of workers, for the user."""
        return format_count(self.workers, "worker")

    @property
    def state(self) -> str:
        """The numbers of workers, running models and lost models, for the user."""
        running = sum(len(stack.trials) for stack in self.scheduler.running)
        lost = f", {self.scheduler.lost:,} lost" if self.scheduler.lost else ""
        return f" on {self.place}, {running:,} running{lost}"

    def choose_layout(self, task: Task, trials: Sequence[Trial], mode: ExecutionMode) -> StackLayout:
        """Choose the fastest stack size that fits into its part of the smallest machine's memory."""
        with self._lock:
            self._join(task, trials)
        needs = self.cluster.needs
        if mode.device == "cpu":
            stacks, max_memory = self.cluster.smallest
        else:
            stacks, max_memory = 1, MACHINE_SHARE * min(1.0, needs.gpus or 1.0) * self.call(free, mode.device)
        memory = max_memory if needs.memory is None else needs.memory * 1e9 * stacks
        return choose_layout(task, trials, mode, stacks, memory, self.call_workers)

    def describe_provenance(self, plan: ExecutablePlan, device: str) -> str:
        """Return the provenance of numbers trained here: library versions and all processor types of the cluster."""
        with self._lock:
            self._join(plan)
        kinds = " or ".join(self.cluster.kinds)
        return kinds if device == "cpu" else f"{kinds}, {self.call(describe_device, device)}"

    def call_workers(self, count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Call a function in `count` workers at the same time and return the results."""
        import ray

        with self._lock:
            self._join(*args)
            packed_call = self.cluster.pack_call(function, args)
        for death in range(LOSSES):
            try:
                return list(ray.get([self.cluster.remote(call).remote(*packed_call) for _ in range(count)]))
            except ray.exceptions.RayError as error:
                cause = self.cluster.explain_error(error)
                if not isinstance(cause, WorkerError) or death + 1 == LOSSES:
                    raise cause from error
        return []

    def map_concurrently(self, function: Callable[[Any], Any], plans: Sequence[Any]) -> list[Any]:
        """Call a function that runs a race on each plan, concurrently, so that workers are busy while a race waits."""
        with self._lock:
            self._join(*plans)
        try:
            with ThreadPoolExecutor(max(1, len(plans))) as threads:
                jobs = [threads.submit(function, plan) for plan in plans]
                try:
                    for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                        job.result()
                except BaseException:
                    threads.shutdown(wait=False, cancel_futures=True)
                    self._is_cancelled = True  # the other races stop, too
                    raise
        finally:
            self._is_cancelled = False
        return [job.result() for job in jobs]

    def _join(self, *args: Any) -> None:
        self.cluster.join(args, bool(self.scheduler.running))

    def submit(self, stack: TrialStack) -> None:
        """Submit a stack to Ray."""
        task, mode = stack.group.payload
        packed_call = self.cluster.pack_call(train, (task, stack.trials, mode))
        interval = max(1.0, self.workers / REPORTS)
        self._jobs[
            self.cluster.remote(run_stack).remote(*packed_call, self.cluster.progress_queue, id(stack), interval)
        ] = stack

    def completed(self, timeout: float) -> list[tuple[TrialStack, StackResult]]:
        """Return the stacks that have completed, including those whose worker or machine was lost."""
        import ray

        if self._is_cancelled:
            raise WorkerError("the races beside it were given up.")
        if self._machine_errors:
            raise self._machine_errors.pop()
        if not self._jobs:
            time.sleep(timeout)
            return []
        with self._lock:
            jobs = list(self._jobs)
        if ray.wait(jobs, timeout=timeout)[0]:
            jobs, _ = ray.wait(jobs, num_returns=len(jobs), timeout=0)
        else:
            jobs = []
        self._update_progress()
        completed = [(self._jobs.pop(job, None), self.cluster.get_result(job)) for job in jobs]
        # A machine with other versions has joined: raised on the next call, after the others' results are saved.
        self._machine_errors = [result for _, result in completed if isinstance(result, EngineError)]
        return [
            (stack, result) for stack, result in completed if stack is not None and not isinstance(result, EngineError)
        ]

    def cancel(self, stacks: Sequence[TrialStack]) -> None:
        """Cancel running stacks and kill their workers."""
        import ray

        for job in [job for job, stack in self._jobs.items() if stack in stacks]:
            del self._jobs[job]
            with contextlib.suppress(ray.exceptions.RayError):
                ray.cancel(job, force=True)

    def _update_progress(self) -> None:
        """Read the workers' progress reports."""
        import ray

        with self._lock:
            stacks = {id(stack): stack for stack in self._jobs.values()}
        with contextlib.suppress(ray.exceptions.RayError):  # the queue restarts on another machine
            for number, share in self.cluster.progress_queue.get_nowait_batch(self.cluster.progress_queue.qsize()):
                if number in stacks:
                    stacks[number].share = share
