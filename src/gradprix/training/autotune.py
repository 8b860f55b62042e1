"""How many networks a lane holds: as many as pay, and as memory has room for.

The width changes no number of a race, only its time, so it may be found by measuring.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import Any

import psutil

from gradprix.tasks import Task
from gradprix.tasks.lazy_dataset import Stream
from gradprix.tasks.schedules import count_steps
from gradprix.training.provenance import versions
from gradprix.utils.devices import free, named, wait
from gradprix.utils.files import cache_folder, write_atomically

from .first_step import known_first_step, measure_first_step
from .model_stack import Form, Together, quiet
from .stack_sizes import capacities
from .trainer import BATCHES_AT_ONCE, NARROWEST, Lane
from .trial import Trial
from .trial import form as form_of

WIDTHS = (16, 64, 256)
BETTER = 0.9
"""A wider lane must take less than this share of a narrower one's time for each network, for it also costs memory."""
SHORT = 5_000
"""Training steps of a race below which measuring takes longer than it saves."""
UNMEASURED = 32
"""The width of lanes in a race that is too short to measure."""
PROCESS = 400e6
"""Bytes of a process before it holds a network: Python, torch and the libraries."""
STEPS, LONG = 5, 0.1
"""A width is measured for so many steps, and for so many seconds: long enough for processes to get in each other's way.
"""
ENOUGH, TRIED = 1.0, 10.0
"""Seconds of steps after which a width is measured no longer, and of all after which no wider stack is tried: calling
the operations of so long a step takes a small part of it, which is all that a wider one saves."""
ALONE = 0.05
"""Seconds of a step from which models that are trained one at a time go to the processes one by one: each is finished
sooner, and takes no memory before its turn."""
Everywhere = Callable[..., list[Any]]
"""`everywhere(count, function, *args)`: what a function answers in so many processes that are asked at once."""


class MemoryTooSmallError(ValueError):
    """The memory that a race may take has no room for its smallest lane."""


@dataclass(frozen=True)
class Shape:
    """How the networks of a race are laid over processes.

    Args:
        width: networks in a lane at most.
        processes: lanes at once.
    """

    width: int
    processes: int


def shape(
    task: Task,
    trials: Sequence[Trial],
    form: Form,
    processes: int,
    memory: float | None = None,
    everywhere: Everywhere = lambda count, function, *args: [function(*args)],
) -> Shape:
    """The width that pays, and as many processes as pay and memory has room for.

    Args:
        task: the problem.
        trials: what is to be trained, of one batch size.
        form: how.
        processes: how many there may be.
        memory: bytes the race may take, of the device's; half of what is free when None.
        everywhere: asks so many processes at once; this one when left out.

    Raises:
        MemoryTooSmallError: when two networks in one process do not fit.
    """
    processes = processes if form.device == "cpu" else 1  # several would take turns on a GPU
    budget = everywhere(1, free, form.device)[0] / 2 if memory is None else float(memory)
    if not form.stacked:
        return _shape_one_at_a_time(task, trials, form, processes, budget, memory is not None, everywhere)
    (each,) = everywhere(1, bytes_of_one, task, trials, form)
    base = PROCESS + task.loaded.nbytes
    most = (budget / processes - base) / each
    while most < NARROWEST and processes > 1:
        processes -= 1
        most = (budget / processes - base) / each
    if most < NARROWEST and memory is not None:
        raise MemoryTooSmallError(
            f"memory = {budget / 1e9:.2g} GB: two networks of task {task.name!r} in one process take about "
            f"{(base + NARROWEST * each) / 1e9:.2g} GB. Give that much, or a smaller batch."
        )
    count = len(task.loaded.split(0).train)
    steps = sum(count_steps(count, trial.batch_size, trial.epochs) for trial in trials)
    pays = Shape(UNMEASURED, processes)
    if steps >= SHORT and form.stacked:
        pays = measured(task, trials, form, processes, most, everywhere)
    width = max(NARROWEST, min(pays.width, int(most), form.widest or pays.width))
    return Shape(capacities(width)[-1], min(pays.processes, processes))


def _shape_one_at_a_time(
    task: Task, trials: Sequence[Trial], form: Form, processes: int, budget: float, given: bool, everywhere: Everywhere
) -> Shape:
    """As many processes as memory has room for, with several models in each where that saves time."""
    trial = trials[0]
    step = known_first_step(
        task, trial, form.device, lambda: everywhere(1, measure_first_step, task, trial, form.device)[0]
    )
    state = max(trial.rule.memory(trial.values) or 0 for trial in {trial.rule.name: trial for trial in trials}.values())
    each = step.weight_bytes + state / 2 * step.state_bytes
    one = PROCESS + task.loaded.nbytes + each + step.step_bytes
    if given and one > budget:
        raise MemoryTooSmallError(
            f"memory = {budget / 1e9:.2g} GB: training one network of task {task.name!r} takes about "
            f"{one / 1e9:.2g} GB. Give that much, or a smaller batch."
        )
    processes = max(1, min(processes, int(budget / one)))
    if step.seconds >= ALONE and not isinstance(task.loaded, Stream):  # models of one seed share what is read
        return Shape(1, processes)
    return Shape(max(1, min(UNMEASURED, 1 + int((budget / processes - one) / each))), processes)


def measured(
    task: Task, trials: Sequence[Trial], form: Form, processes: int, most: float, everywhere: Everywhere
) -> Shape:
    """The shape in which a network takes the least time, of those that fit; remembered for this task and machine."""
    machine = (platform.processor(), platform.machine(), os.cpu_count(), versions())
    machine += tuple(everywhere(1, named, form.device))
    about = (task.fingerprint, form, trials[0].batch_size, processes, machine)
    key = hashlib.sha256(repr(about).encode()).hexdigest()[:24]
    known = _remembered()
    if key in known:
        return Shape(*known[key])

    def seconds(shape: Shape) -> float:
        # All at once, for processes share caches and the way to memory.
        took: list[float] = everywhere(shape.processes, seconds_of_one, task, trials, form, shape.width)
        return max(took) / shape.processes

    started, best = time.perf_counter(), Shape(WIDTHS[0], processes)
    least = seconds(best)
    for width in WIDTHS[1:]:  # not the number of trials: later stages of a race have more
        wider = Shape(width, processes)
        if width > most or time.perf_counter() - started > TRIED or (took := seconds(wider)) > BETTER * least:
            break
        best, least = wider, took
    cores = psutil.cpu_count(logical=False) or processes
    if cores < processes and seconds(fewer := Shape(best.width, cores)) < BETTER * least:
        best = fewer
    _remember(known | {key: [best.width, best.processes]})
    return best


def seconds_of_one(task: Task, trials: Sequence[Trial], form: Form, width: int) -> float:
    """How long a network takes for a training step in a lane of so many."""
    rows = sorted((trials[i * len(trials) // width % len(trials)] for i in range(width)), key=form_of)
    with quiet(form.device):
        lane = Lane(task, rows, form)
        batch = lane.train[:, : rows[0].batch_size or lane.train.shape[1]]
        lane.step(batch, 1e-3)
        wait(lane.device)
        times: list[float] = []
        while (len(times) < STEPS or sum(times) < LONG) and sum(times) < ENOUGH:
            started = time.perf_counter()
            lane.step(batch, 1e-3)
            wait(lane.device)
            times.append(time.perf_counter() - started)
    return median(times) / width


def bytes_of_one(task: Task, trials: Sequence[Trial], form: Form) -> float:
    """About how much memory a network takes in a lane: weights, gradients, state, and what a step holds on the way."""
    rows = [trials[0]] * NARROWEST
    with quiet(form.device):
        lane = Lane(task, rows, form)
        batch = lane.batch(lane.train[:, : rows[0].batch_size or lane.train.shape[1]])
        many = lane.batch(lane.valid[:, : (rows[0].batch_size or lane.valid.shape[1]) * BATCHES_AT_ONCE])
        held = 0.0
        if isinstance(lane.network, Together):
            held = max(
                lane.network.program("train", lane.leaves, lane.rest, *batch).peak,
                lane.network.program("score", lane.leaves, lane.rest, *many).peak,
            )
    weights = sum(x[0].numel() * x.element_size() for x in lane.leaves.values())
    rest = sum(x[0].numel() * x.element_size() for x in lane.rest.values())
    state = max(trial.rule.memory(trial.values) or 0 for trial in {trial.rule.name: trial for trial in trials}.values())
    return float(held / len(lane.rows) + weights * (2 + state) + rest)


def _remembered() -> dict[str, list[int]]:
    folder = cache_folder("shapes")
    with suppress(OSError, ValueError):
        if folder is not None:
            return dict(json.loads((folder / "shapes.json").read_text("utf-8")))
    return {}


def _remember(known: dict[str, list[int]]) -> None:
    folder = cache_folder("shapes")
    if folder is not None:
        with suppress(OSError):
            write_atomically(folder / "shapes.json", json.dumps(known).encode())
