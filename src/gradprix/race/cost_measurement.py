"""Measurement of the training cost of a race on this machine, or on a cluster."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any

import torch

from gradprix.executors.executor import Executor
from gradprix.tasks import Task
from gradprix.training import (
    MIN_STACK,
    ModelStack,
    StackLayout,
    Trial,
    UpdateCost,
    evaluate,
    is_costly,
    measure_updates,
    runtime_settings,
    seconds_of_one,
    without_update,
)
from gradprix.training.evaluation import BATCH_FACTOR
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.loop_runner import Stopped, run_loop
from gradprix.utils.devices import wait
from gradprix.utils.wording import format_list

from .cost import Cost, available_seconds
from .live_files import LiveProgress, Watch
from .plan import Plan
from .preflight import preflight
from .reduced_plans import reduced_plans

SUFFICIENT_SECONDS, SLOW_CALL = 0.5, 5.0
"""Duration of an evaluation that suffices for extrapolation, and duration of a first call above which the call is not
repeated, both in seconds."""
ONE_RUN = 60.0
"""Seconds after which the measured run of a training loop is stopped. The plan then states a lower bound of the race's
duration."""

KNOWN_UPDATES: dict[tuple[str, ...], dict[str, UpdateCost]] = {}
"""Cache of measured optimizer steps by task, device and trials."""


def measure_cost(plan: Plan, engine: Executor, watch: Watch = lambda *_: None, minutes: float | None = None) -> Cost:
    """Measure the training cost of a plan from a few steps of all its entries, while all processes are busy.

    Args:
        plan: plan of the race.
        engine: executor of the race.
        watch: progress callback.
        minutes: time budget of the race. The measured run of a training loop is stopped when the loop turns out to be
            too slow for the budget.

    Raises:
        TaskError: if the task fails.
    """
    started = time.perf_counter()
    mode = preflight(plan, engine, watch)
    watch(LiveProgress(f"Measuring how long {plan.task.name!r} takes"))
    trials = [plan.careful_trial(entry, seed) for entry in plan.entries for seed in range(2)]
    sharpness_aware = sum(trial.sam_rho is not None for trial in trials) / len(trials)
    trials = [replace(trial, sam_rho=None) for trial in trials]
    if not isinstance(plan.task, Task):
        patience = ONE_RUN if minutes is None else _longest_run(plan, minutes, engine.workers)
        seconds, is_finished = engine.call(time_loop_run, plan.task, trials[0], patience)
        cost = Cost(0.0, 0.0, 0.0, seconds, StackLayout(1, engine.workers), at_least=not is_finished)
    else:
        cost = (_measure_stacks if mode.stacked else _measure_sequential)(plan.task, trials, mode, engine)
        cost = replace(cost, updates=time_updates(plan, mode, engine, watch))
    # A sharpness-aware step computes two gradients, which take most of its time.
    step, network = ((1 + sharpness_aware) * seconds for seconds in (cost.step, cost.network))
    return replace(cost, start=time.perf_counter() - started, step=step, network=network)


def time_updates(
    plan: Plan, mode: ExecutionMode, engine: Executor, watch: Watch = lambda *_: None
) -> dict[str, UpdateCost]:
    """Measure the optimizer steps of the entries of a plan that may take longer than the gradients.

    Measurements are reused within a process.

    Args:
        plan: plan of a race on a task.
        mode: execution mode of the race.
        engine: executor of the race.
        watch: progress callback.

    Returns:
        Cost of an optimizer step of one model by entry; empty if the steps of all optimizers are elementwise.
    """
    trials = [plan.careful_trial(entry, 0) for entry in plan.entries if is_costly(entry.rule)]
    if not trials or not isinstance(plan.task, Task):
        return {}
    key = plan.task.fingerprint, mode.device, *(part for trial in trials for part in (trial.entry_name, trial.key))
    if key not in KNOWN_UPDATES:
        watch(LiveProgress(f"Timing the optimizer steps of {format_list([trial.entry_name for trial in trials])}"))
        KNOWN_UPDATES[key] = engine.call(measure_updates, plan.task, trials, mode)
    return KNOWN_UPDATES[key]


def _longest_run(plan: Plan, minutes: float, workers: int) -> float:
    """Return the longest duration of a training run, in seconds, with which the smallest race fits the time budget."""
    runs = min(candidate.runs for candidate in reduced_plans(plan))
    return available_seconds(minutes) / math.ceil(runs / workers)


def _measure_sequential(task: Task, trials: list[Trial], mode: ExecutionMode, engine: Executor) -> Cost:
    """Measure the cost of training one model at a time."""
    shape = engine.choose_layout(task, trials, mode)
    each = engine.call_workers(shape.processes, measure_sequential_costs, task, trials, mode)
    model, step, evaluation = (max(costs) for costs in zip(*each, strict=True))
    return Cost(0.0, 0.0, step, evaluation, shape, model)


def _measure_stacks(task: Task, trials: list[Trial], mode: ExecutionMode, engine: Executor) -> Cost:
    """Measure the cost of training stacks of models.

    Stacks of two widths are timed. Their difference separates the cost per stack from the cost per model. The steps of
    costly optimizers are left out; see `time_updates`.
    """
    shape = engine.choose_layout(task, trials, mode)
    trials = [without_update(trial) for trial in trials]
    wide = shape.width
    narrow = 16 if wide > 16 else MIN_STACK

    def slowest(measure: Callable[..., float], width: int) -> float:
        """Return the largest measurement among all worker processes, which measure at the same time."""
        return float(max(engine.call_workers(shape.processes, measure, task, trials, mode, width)))

    in_narrow, in_wide = slowest(seconds_of_one, narrow), slowest(seconds_of_one, wide)
    step = max(0.0, (in_narrow - in_wide) / (1 / narrow - 1 / wide))
    return Cost(0.0, step, in_wide - step / wide, slowest(seconds_to_evaluate, narrow), shape)


def time_loop_run(loop: Any, trial: Trial, patience: float) -> tuple[float, bool]:
    """Measure the duration of a run of a custom training loop.

    Args:
        loop: training loop.
        trial: trial to run.
        patience: number of seconds after which the run is stopped.

    Returns:
        The elapsed seconds, and True if the run finished by itself.
    """
    started = time.perf_counter()
    whole = True
    try:
        run_loop(loop, trial, stop=lambda _: time.perf_counter() - started > patience)
    except Stopped:
        whole = False
    return time.perf_counter() - started, whole


def measure_sequential_costs(task: Task, trials: list[Trial], mode: ExecutionMode) -> tuple[float, float, float]:
    """Measure the cost of a single model.

    The optimizer step is averaged over the optimizers of the trials, which all step the same model. Costly ones are
    left out; see `time_updates`.

    Returns:
        Seconds of model initialization, of a training step, and of an evaluation on the validation set.
    """
    rules = {trial.rule.name: trial for trial in map(without_update, trials)}
    with runtime_settings(mode.device):
        started = time.perf_counter()
        stack = ModelStack(task, [next(iter(rules.values()))], mode)
        wait(stack.device)
        start = time.perf_counter() - started
        index = stack.data.train[:, : trials[0].batch_size or stack.data.train.shape[1]]
        gradients = [torch.zeros_like(x) for x in stack.parameters.values()]

        def step() -> None:
            computed = stack.batch_gradients(index)[1]
            for into, g in zip(gradients, computed, strict=True):
                if g is not None:
                    into.copy_(g)
            if stack.clipper is not None:
                stack.clipper(gradients)

        backward = _seconds(step, stack)
        updates = []
        for trial in rules.values():
            optimizers = stack.make_optimizers([trial])
            with torch.no_grad():
                updates.append(_seconds(partial(optimizers.step, gradients, 1.0), stack))
        return start, backward + sum(updates) / len(updates), _seconds_to_evaluate(stack)


def _seconds(run: Callable[[], object], stack: ModelStack) -> float:
    """Return the duration of a call in seconds, measured at the second call because the first also allocates memory.

    If the first call takes longer than `SLOW_CALL` seconds, its duration is returned instead.
    """
    for _ in range(2):
        started = time.perf_counter()
        run()
        wait(stack.device)
        if (elapsed := time.perf_counter() - started) > SLOW_CALL:
            break
    return float(elapsed)


def _seconds_to_evaluate(stack: ModelStack) -> float:
    """Return the duration of an evaluation on the validation set, in seconds.

    It is extrapolated from a part of the validation set if the whole set would take long.
    """
    count = stack.data.valid.shape[1]
    # Without stacking, a small batch takes as long per example. In a stack, a traced program needs full batches.
    batch = stack.task.micro_batch(stack.trials[0].batch_size or count)
    part = min(count, batch * (BATCH_FACTOR if stack.mode.stacked else 1))
    elapsed = _seconds(lambda: evaluate(stack, stack.data.valid[:, :part]), stack)
    # A multiple of full batches runs the same traced program.
    more = part * min(count // part, int(SUFFICIENT_SECONDS / max(elapsed, 1e-6)))
    if more > part:
        part, elapsed = more, _seconds(lambda: evaluate(stack, stack.data.valid[:, :more]), stack)
    return float(elapsed * count / part)


def seconds_to_evaluate(task: Task, trials: list[Trial], mode: ExecutionMode, width: int) -> float:
    """Return the duration of an evaluation per model, in seconds, in a stack of `width` models."""
    rows = sorted((trials[i % len(trials)] for i in range(width)), key=attrgetter("update_key"))
    with runtime_settings(mode.device):
        return _seconds_to_evaluate(ModelStack(task, rows, mode)) / width
