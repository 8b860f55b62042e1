"""Choice of the stack size by measurement: the fastest number of models per stack that fits into memory.

The stack size affects the speed of a race but none of its results, so it may depend on the machine.
"""

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from statistics import median
from typing import Any

import psutil

from gradprix.tasks import Task
from gradprix.tasks.lazy_dataset import Stream
from gradprix.tasks.schedules import count_steps
from gradprix.utils.devices import describe_device, free, wait
from gradprix.utils.files import cache_folder, write_atomically

from .evaluation import BATCH_FACTOR
from .execution_mode import ExecutionMode
from .first_step import known_first_step, measure_first_step
from .model_stack import ModelStack
from .provenance import versions
from .runtime_settings import runtime_settings
from .stack_sizes import MIN_STACK, capacities
from .trial import Trial
from .update_cost import without_update

WIDTHS = (16, 64, 256)
MAX_TIME_RATIO = 0.9
"""A wider stack is chosen only if its time per model is below this fraction of the narrower stack's, since it also
needs more memory."""
MIN_MEASURED_STEPS = 5_000
"""Minimum number of training steps of a race for which stack sizes are measured; below, measuring takes longer than it
saves."""
UNMEASURED = 32
"""Stack size of a race that is too short for measurements."""
PROCESS = 400e6
"""Memory of a process without a model, in bytes: Python, torch and other libraries."""
MIN_STEPS, MIN_SECONDS = 5, 0.1
"""A stack size is timed for at least this many steps and seconds, so that contention between processes shows."""
MAX_SECONDS, MAX_TOTAL_SECONDS = 1.0, 10.0
"""A stack size is timed for at most `MAX_SECONDS`. After `MAX_TOTAL_SECONDS` no larger stack size is timed: if steps
take so long, dispatch overhead, which is all that a larger stack saves, is a small part of their time."""
SLOW_STEP = 0.05
"""If a step takes this many seconds or more, sequentially trained models are distributed to processes one by one: each
model finishes sooner and takes no memory before it is trained."""
CallWorkers = Callable[..., list[Any]]
"""`call_workers(count, function, *args)` runs a function in `count` processes at the same time and returns the list of
results."""


class MemoryTooSmallError(ValueError):
    """The memory limit of a race is too small for its smallest stack."""


@dataclass(frozen=True)
class StackLayout:
    """Number of models per stack and of processes in a race.

    Args:
        width: maximum number of models in a stack.
        processes: number of stacks that run at the same time.
    """

    width: int
    processes: int


def choose_layout(
    task: Task,
    trials: Sequence[Trial],
    mode: ExecutionMode,
    processes: int,
    memory: float | None = None,
    call_workers: CallWorkers = lambda count, function, *args: [function(*args)],
) -> StackLayout:
    """Choose the fastest stack size and number of processes that fit into memory.

    Args:
        task: the task.
        trials: the trials to train, all of one batch size.
        mode: the execution mode.
        processes: maximum number of processes.
        memory: memory limit of the race in bytes, on its device; half of the free memory when None.
        call_workers: runs a function in several processes at the same time; by default, in the current process.

    Raises:
        MemoryTooSmallError: if the memory limit is too small for the smallest stack, or for one model if `mode` is not
            stacked.
    """
    processes = processes if mode.device == "cpu" else 1  # several processes would take turns on a GPU
    budget = call_workers(1, free, mode.device)[0] / 2 if memory is None else float(memory)
    if not mode.stacked:
        return _choose_sequential_layout(task, trials, mode, processes, budget, memory is not None, call_workers)
    model_bytes = _measure_bytes(task, trials, mode, call_workers)
    base = PROCESS + task.loaded.nbytes
    max_width = (budget / processes - base) / model_bytes
    while max_width < MIN_STACK and processes > 1:
        processes -= 1
        max_width = (budget / processes - base) / model_bytes
    if max_width < MIN_STACK and memory is not None:
        raise MemoryTooSmallError(
            f"memory = {budget / 1e9:.2g} GB: two networks of task {task.name!r} in one process take about "
            f"{(base + MIN_STACK * model_bytes) / 1e9:.2g} GB. Give that much, or a smaller batch."
        )
    count = len(task.loaded.split(0).train)
    steps = sum(count_steps(count, trial.batch_size, trial.epochs) for trial in trials)
    fastest = StackLayout(UNMEASURED, processes)
    if steps >= MIN_MEASURED_STEPS:
        fastest = _measure_layout(task, trials, mode, processes, max_width, call_workers)
    width = max(MIN_STACK, min(fastest.width, int(max_width), mode.widest or fastest.width))
    return StackLayout(capacities(width)[-1], min(fastest.processes, processes))


def _choose_sequential_layout(
    task: Task,
    trials: Sequence[Trial],
    mode: ExecutionMode,
    processes: int,
    budget: float,
    has_memory_limit: bool,
    call_workers: CallWorkers,
) -> StackLayout:
    """Return the layout for models that are trained one at a time.

    Memory limits the number of processes. A process gets several models if a step is fast or the examples are streamed.
    """
    trial = trials[0]
    step = known_first_step(
        task, trial, mode.device, lambda: call_workers(1, measure_first_step, task, trial, mode.device)[0]
    )
    state = _largest_state(trials)
    model_bytes = step.weight_bytes + state / 2 * step.state_bytes
    process_bytes = PROCESS + task.loaded.nbytes + model_bytes + step.step_bytes
    if has_memory_limit and process_bytes > budget:
        raise MemoryTooSmallError(
            f"memory = {budget / 1e9:.2g} GB: training one network of task {task.name!r} takes about "
            f"{process_bytes / 1e9:.2g} GB. Give that much, or a smaller batch."
        )
    processes = max(1, min(processes, int(budget / process_bytes)))
    if step.seconds >= SLOW_STEP and not isinstance(task.loaded, Stream):  # in a stack, equal seeds share a read
        return StackLayout(1, processes)
    return StackLayout(max(1, min(UNMEASURED, 1 + int((budget / processes - process_bytes) / model_bytes))), processes)


def _measure_bytes(task: Task, trials: Sequence[Trial], mode: ExecutionMode, call_workers: CallWorkers) -> float:
    """Return the memory per model of a stack, in bytes, from a measurement or from the cache of earlier ones."""
    key, cache = _cache_key(task, trials, mode, "bytes", _largest_state(trials)), _load_cache()
    if key not in cache:
        cache[key] = [math.ceil(call_workers(1, bytes_of_one, task, trials, mode)[0])]
        _save_cache(cache)
    return cache[key][0]


def _largest_state(trials: Sequence[Trial]) -> float:
    """Return the size of the largest state of the optimizers, in units of the parameters."""
    return max(trial.rule.memory(trial.values) or 0 for trial in {trial.rule.name: trial for trial in trials}.values())


def _cache_key(task: Task, trials: Sequence[Trial], mode: ExecutionMode, *more: Any) -> str:
    """Return the key of a measurement in the cache: a hash of the task, the batch size, the mode and the machine."""
    machine = (platform.processor(), platform.machine(), os.cpu_count(), versions())
    key = repr((task.fingerprint, mode, trials[0].batch_size, machine, *more))
    return hashlib.sha256(key.encode()).hexdigest()[:24]


def _measure_layout(
    task: Task,
    trials: Sequence[Trial],
    mode: ExecutionMode,
    processes: int,
    max_width: float,
    call_workers: CallWorkers,
) -> StackLayout:
    """Return the fastest layout that fits into memory, from measurements or from the cache of earlier measurements."""
    trials = [without_update(trial) for trial in trials]  # the steps of costly optimizers save nothing in wider stacks
    device = call_workers(1, describe_device, mode.device)
    key, cache = _cache_key(task, trials, mode, processes, *device), _load_cache()
    if key in cache:
        return StackLayout(*cache[key])

    def seconds(layout: StackLayout) -> float:
        # All processes run at the same time, since they compete for caches and memory bandwidth.
        times: list[float] = call_workers(layout.processes, seconds_of_one, task, trials, mode, layout.width)
        return max(times) / layout.processes

    start, best = time.perf_counter(), StackLayout(WIDTHS[0], processes)
    least_seconds = seconds(best)
    for width in WIDTHS[1:]:  # regardless of the number of trials: later phases of a race have more
        wider = StackLayout(width, processes)
        if (
            width > max_width
            or time.perf_counter() - start > MAX_TOTAL_SECONDS
            or (took := seconds(wider)) > MAX_TIME_RATIO * least_seconds
        ):
            break
        best, least_seconds = wider, took
    cores = psutil.cpu_count(logical=False) or processes
    if cores < processes and seconds(fewer := StackLayout(best.width, cores)) < MAX_TIME_RATIO * least_seconds:
        best = fewer
    _save_cache(cache | {key: [best.width, best.processes]})
    return best


def seconds_of_one(task: Task, trials: Sequence[Trial], mode: ExecutionMode, width: int) -> float:
    """Measure the median time of a training step of `width` stacked models and return it per model, in seconds."""
    rows = (trials[i * len(trials) // width % len(trials)] for i in range(width))
    with runtime_settings(mode.device):
        stack = ModelStack(task, sorted(rows, key=attrgetter("update_key")), mode)
        batch = stack.data.train[:, : trials[0].batch_size or stack.data.train.shape[1]]
        stack.step(batch, 1e-3)
        wait(stack.device)
        times: list[float] = []
        while (len(times) < MIN_STEPS or sum(times) < MIN_SECONDS) and sum(times) < MAX_SECONDS:
            start = time.perf_counter()
            stack.step(batch, 1e-3)
            wait(stack.device)
            times.append(time.perf_counter() - start)
    return median(times) / width


def bytes_of_one(task: Task, trials: Sequence[Trial], mode: ExecutionMode) -> float:
    """Estimate the memory per model of a stack, in bytes: weights, gradients, optimizer state and activations."""
    batch_size = trials[0].batch_size
    with runtime_settings(mode.device):
        stack = ModelStack(task, [trials[0]] * MIN_STACK, mode)
        data, peak = stack.data, 0.0
        train_batch = data.read(data.train[:, : task.micro_batch(batch_size or data.train.shape[1])])
        many = task.micro_batch(batch_size or data.valid.shape[1]) * BATCH_FACTOR
        valid_batch = data.read(data.valid[:, :many])
        if mode.stacked:
            steps = stack.traced_step("train", *train_batch), stack.traced_step("score", *valid_batch)
            peak = max(step.peak for step in steps)
    parameters = sum(x[0].nbytes for x in stack.parameters.values())
    buffers = sum(x[0].nbytes for x in stack.buffers.values())
    state = _largest_state(trials)
    return float(peak / len(stack.rows) + parameters * (2 + state) + buffers)


def _load_cache() -> dict[str, list[int]]:
    folder = cache_folder("shapes")
    with suppress(OSError, ValueError):
        if folder is not None:
            return dict(json.loads((folder / "shapes.json").read_text("utf-8")))
    return {}


def _save_cache(cache: dict[str, list[int]]) -> None:
    folder = cache_folder("shapes")
    if folder is not None:
        with suppress(OSError):
            write_atomically(folder / "shapes.json", json.dumps(cache).encode())
