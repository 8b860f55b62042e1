"""Executor that trains stacks on a Ray cluster.

Ray assigns stacks to machines and reports lost workers and machines. Retries are scheduled by gradprix, as for all
executors. Only the process that runs the race writes its journal.
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
    """Executor that trains on a Ray cluster, or on this machine under Ray.

    Args:
        address: `HOST:PORT` of the cluster; `"auto"` for a cluster that runs on this machine; `"local"` for a new
            cluster that consists of this machine. None for the cluster at `RAY_ADDRESS` if this variable is set,
            otherwise a cluster that runs on this machine, otherwise a new cluster.
        processes: maximum number of stacks at the same time; if None, as many as fit on the cluster's machines.
        cpus: number of CPU cores of each stack; if None, the task's setting, or 1.
        gpus: number of GPUs of each stack, or a fraction of one GPU; if None, the task's setting, or 0.
        memory: memory of each stack in GB; if None, the task's setting, or half of the machine's memory divided equally
            among its stacks.
        folder: folder with your code, which is copied to each machine; if None, the folder it was imported from.

    Raises:
        EngineError: if Ray is not installed, or no cluster answers at the address.
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
        """The number of workers as text, to be shown to the user."""
        return format_count(self.workers, "worker")

    @property
    def state(self) -> str:
        """The numbers of workers, running models and lost models as text, to be shown to the user."""
        running = sum(len(stack.trials) for stack in self.scheduler.running)
        lost = f", {self.scheduler.lost:,} lost" if self.scheduler.lost else ""
        return f" on {self.place}, {running:,} running{lost}"

    def choose_layout(self, task: Task, trials: Sequence[Trial], mode: ExecutionMode) -> StackLayout:
        """Choose the fastest stack size for which stacks fit into the memory of the smallest machine."""
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
        """Return the provenance of results of this executor: library versions and the cluster's processor types."""
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
        """Call a function that runs a race on each plan, concurrently, and return the results.

        While one race waits for its last stacks, workers train stacks of the other races.
        """
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
                    self._is_cancelled = True  # makes the other races stop, too
                    raise
        finally:
            self._is_cancelled = False
        return [job.result() for job in jobs]

    def _join(self, *args: Any) -> None:
        self.cluster.join(args, bool(self.scheduler.running))

    def submit(self, stack: TrialStack) -> None:
        """Submit a stack to Ray."""
        task, mode, _ = stack.group.payload  # workers on other machines cannot write to the race's folder
        packed_call = self.cluster.pack_call(train, (task, stack.trials, mode))
        interval = max(1.0, self.workers / REPORTS)
        self._jobs[
            self.cluster.remote(run_stack).remote(*packed_call, self.cluster.progress_queue, id(stack), interval)
        ] = stack

    def completed(self, timeout: float) -> list[tuple[TrialStack, StackResult]]:
        """Return the stacks that have completed, with their results; wait up to `timeout` seconds for the first.

        Stacks whose worker or machine was lost are included, with a `WorkerError` as result.
        """
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
        # Errors of machines that have joined with other library versions are raised by the next call, after the caller
        # has saved the results of other machines.
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
        """Read the workers' progress reports and update the progress of running stacks."""
        import ray

        with self._lock:
            stacks = {id(stack): stack for stack in self._jobs.values()}
        with contextlib.suppress(ray.exceptions.RayError):  # the queue restarts on another machine
            for number, share in self.cluster.progress_queue.get_nowait_batch(self.cluster.progress_queue.qsize()):
                if number in stacks:
                    stacks[number].share = share
