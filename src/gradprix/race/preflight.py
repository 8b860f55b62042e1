"""Preflight: validate a task, measure a training step, and choose the execution mode of the race.

The checks are in other modules: `validate_task` checks the parts of a task, `check_last_batches` the batch sizes,
`check_loop` training loops, and `STACK_CHECKS` stacks of models. Each stops at the first failure.
"""

import math
from dataclasses import replace
from functools import partial

import joblib

from gradprix.executors.executor import Executor
from gradprix.tasks import Task
from gradprix.tasks.loop import Loop, cache_problem
from gradprix.training import FirstStep, Trial, known_first_step, measure_first_step, runtime_settings, seconds_of_one
from gradprix.training.autotune import bytes_of_one
from gradprix.training.execution_mode import ExecutionMode, Rejection, RejectionCause
from gradprix.training.first_step import ARITHMETIC_BOUND
from gradprix.training.stacking_errors import explain
from gradprix.training.update_cost import without_update
from gradprix.utils.devices import accelerator_type, free, require

from .checked_plans import find_checked_mode, record_checked_mode
from .last_batch import check_last_batches
from .live_files import LiveProgress, Watch
from .loop_check import check_loop
from .plan import Plan
from .stack_checks import MAX_SLOWDOWN, PROBED_MODELS, DeviceCheck, attempt, is_close, select_mode
from .validate_task import validate_task

GPU_MODELS = 64
"""Number of models in the stack with which a GPU is timed. A GPU trains that many in about the time of one."""


def preflight(plan: Plan, engine: Executor, watch: Watch = lambda *_: None) -> ExecutionMode:
    """Check a plan on the executor of the race.

    The result of an earlier check of the same plan is reused, also from another process; see `checked_plans`.

    Args:
        plan: plan of the race.
        engine: executor of the race.
        watch: progress callback.

    Returns:
        The execution mode of the training runs.

    Raises:
        TaskError: if the model, the loss, the metric or one of the optimizers fails.
        ValueError: if the device is not available.
    """
    what = f"Checking {plan.task.name!r}"
    key = (plan.task.fingerprint, plan.task.batch_size, plan.compiled, plan.device, plan.seed)
    known = engine.checked.get(key)
    if known is not None and all(entry in known[0] for entry in plan.entries):
        return known[1]
    if (mode := find_checked_mode(plan, engine)) is not None:
        return mode
    watch(LiveProgress(what))
    first = None
    if isinstance(plan.task, Task):
        first = known_first_step(plan.task, _first_trial(plan), "cpu", lambda: engine.call(first_step, plan))
        watch(LiveProgress(f"{what} ({first.describe()})", is_slow=first.seconds > ARITHMETIC_BOUND))
        _warm_up(plan, first, engine)
    checked: ExecutionMode = engine.call(check, plan, first, engine.memory)
    engine.checked[key] = plan.entries, checked
    record_checked_mode(plan, engine, checked)
    return checked


def first_step(plan: Plan) -> FirstStep:
    """Validate the parts of a task, then measure a training step of one model on the CPU.

    Raises:
        TaskError: if the model, the loss or the metric fails.
        ValueError: if the device is not available.
    """
    task = cache_problem(plan.task)
    if plan.device != "auto":
        require(plan.device)
    with runtime_settings():
        validate_task(task)
        check_last_batches(task, plan)
    return _measure_step(plan, task, "cpu")


def _warm_up(plan: Plan, first: FirstStep, engine: Executor) -> None:
    """Let idle workers trace and compile training steps while one worker checks the plan.

    This is done only if models can probably be stacked.

    Args:
        plan: plan of the race.
        first: measured training step of one model.
        engine: executor of the race.
    """
    assert isinstance(plan.task, Task)
    if plan.compiled or not engine.idle_workers or plan.task.loaded.ragged is not None:
        return
    limit = (free("cpu") / 2 if engine.memory is None else engine.memory) / (1 + engine.idle_workers)
    if first.reject_stack(PROBED_MODELS + 1, limit) is None:
        engine.warm_up(bytes_of_one, plan.task, [_first_trial(plan)], ExecutionMode())


def _first_trial(plan: Plan) -> Trial:
    """Return a trial of the entry with the smallest batch size, because steps of a full-batch entry are not typical.

    It has a cheap optimizer if that of the entry may be costly, whose code is tested later; see `select_mode`.
    """
    entry = min(plan.entries, key=lambda entry: plan.batch_size(entry) or math.inf)
    return without_update(plan.careful_trial(entry, 0))


def _measure_step(plan: Plan, task: Task, device: str) -> FirstStep:
    """Measure the first training step of one model on a device."""
    step: FirstStep = attempt(plan, partial(measure_first_step, task, _first_trial(plan), device), device)
    return step


def check(plan: Plan, first: FirstStep | None = None, memory: float | None = None) -> ExecutionMode:
    """Choose the execution mode of a race, by training a few models for a step, in a stack and one at a time.

    The models are also evaluated on a few examples. Stacking is not tried if a step is slow, or if a small stack would
    exceed the memory limit.

    Args:
        plan: plan of the race.
        first: result of `first_step`; None measures it.
        memory: memory limit of the race in bytes; None means half of the free memory.

    Returns:
        The execution mode. Models are trained in stacks unless a stack fails, computes other gradients, or is slower.
        The device is the one that the plan names. With `"auto"` it is a GPU if there is one, the task runs on it, and
        it is faster than the CPU.

    Raises:
        TaskError: if the model, the loss, the metric or one of the optimizers fails.
        ValueError: if the device is not available.
    """
    if isinstance(plan.task, Loop):
        return check_loop(plan, plan.task)
    task, is_requested = cache_problem(plan.task), plan.device != "auto"
    first = first_step(plan) if first is None else first
    device = plan.device if is_requested else accelerator_type()
    on_cpu = select_mode(plan, task, "cpu", first, memory)
    if device is None or device == "cpu":
        return on_cpu.mode
    try:
        on_device = select_mode(plan, task, device, _measure_step(plan, task, device), memory)
        attempt(plan, partial(_require_equal, on_cpu, on_device, first.precision), device)
        if not is_requested and (slowdown := _gpu_slowdown(plan, task, on_cpu.mode, on_device.mode)) > MAX_SLOWDOWN:
            return replace(on_cpu.mode, device_rejection=Rejection(RejectionCause.SLOWER, slowdown, device=device))
    except Exception as error:
        if is_requested:
            raise
        cause = RejectionCause.FAILS
        if isinstance(error.__cause__, _OtherGradientsError):
            cause = RejectionCause.OTHER_GRADIENTS
        rejection = Rejection(cause, message=explain(error.__cause__ or error), device=device)
        return replace(on_cpu.mode, device_rejection=rejection)
    return on_device.mode


class _OtherGradientsError(ValueError):
    """Raised if a training step has other losses or gradients on a device than on the CPU."""


def _require_equal(on_cpu: DeviceCheck, on_device: DeviceCheck, precision: float) -> None:
    """Raise `_OtherGradientsError` unless a training step has the same losses and gradients on both devices."""
    if not is_close(on_cpu.results, on_device.results, precision):
        raise _OtherGradientsError("it gives other gradients than the CPU")


def _gpu_slowdown(plan: Plan, task: Task, cpu: ExecutionMode, gpu: ExecutionMode) -> float:
    """Return the training time per model and step on a GPU, divided by that on all CPU cores.

    Args:
        plan: plan of the race.
        task: task of the race.
        cpu: execution mode on the CPU.
        gpu: execution mode on the GPU.
    """
    trials = [plan.careful_trial(entry, 0) for entry in plan.entries]
    alike = [trial for trial in trials if trial.batch_size == trials[0].batch_size]
    # Without stacking, the time per model does not depend on the number of models.
    wide, narrow = GPU_MODELS if gpu.stacked else 1, PROBED_MODELS if cpu.stacked else 1
    on_cpu: float = seconds_of_one(task, alike, cpu, narrow) / joblib.cpu_count()
    return seconds_of_one(task, alike, gpu, wide) / on_cpu
