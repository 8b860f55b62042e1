"""Preflight checks: verify that a task can be raced, and select its execution mode."""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import joblib
import torch
from torch import Tensor

from gradprix.executors.executor import Executor
from gradprix.tasks import Task
from gradprix.tasks.lazy_dataset import Stream
from gradprix.tasks.loop import Loop, cache_problem
from gradprix.tasks.task import TaskError
from gradprix.training import (
    MIN_STACK,
    FirstStep,
    ModelStack,
    StackedOptimizers,
    Trial,
    capacities,
    evaluate,
    known_first_step,
    measure_first_step,
    runtime_settings,
    seconds_of_one,
)
from gradprix.training.evaluation import BATCH_FACTOR
from gradprix.training.execution_mode import ExecutionMode, Rejection, RejectionCause
from gradprix.training.faults import describe_error
from gradprix.training.first_step import ARITHMETIC_BOUND
from gradprix.training.optimizer_errors import explain_optimizer_error
from gradprix.training.rng import SequentialRngMode
from gradprix.training.stacking_errors import explain
from gradprix.training.torch_optimizer_adapter import TorchOptimizerAdapter
from gradprix.utils.devices import CPU, accelerator_type, free, placed, require, wait

from .last_batch import check_last_batches
from .loop_check import check_loop
from .plan import Plan
from .progress_display import Watch
from .validate_task import validate_task

EXAMPLES = 64
WIDTH = 8
"""Models in a trial stack: enough for stacking to be faster."""
WIDTHS = (2, 7)
"""Stack widths checked for bitwise row invariance where all operations are known to have it."""
WIDEST, CHECKED = 32, 20.0
"""Maximum width of a stack with an unknown operation, and the approximate limit in seconds for checking all widths up
to it."""
SLOWER = 1.25
"""Slowdown of a stack against sequential models, or of a GPU against the CPU, above which it is rejected: far enough
from 1 that timing noise does not decide."""
TURNS, LONG = (3, 20), 5.0
"""Minimum and maximum number of timing repetitions, and their limit in seconds; repetitions beyond the minimum happen
only while a stack looks slower."""
WIDE = 64
"""Models in the stack that measures a GPU, which trains this many in about the time of one."""


def preflight(plan: Plan, engine: Executor, watch: Watch = lambda *_: None) -> ExecutionMode:
    """Check a plan on its executor, and report progress; results of an earlier check are reused.

    Args:
        plan: the race.
        engine: the executor.
        watch: progress callback.

    Returns:
        The execution mode of the race's models.

    Raises:
        TaskError, ValueError: see `check`.
    """
    what = f"Checking {plan.task.name!r}"
    key = (plan.task.fingerprint, plan.task.batch_size, plan.compiled, plan.device, plan.seed)
    known = engine.checked.get(key)
    if known is not None and all(entry in known[0] for entry in plan.entries):
        return known[1]
    watch(what, 0.0, 0)
    first = None
    if isinstance(plan.task, Task):
        first = known_first_step(plan.task, _first_trial(plan), "cpu", lambda: engine.call(first_step, plan))
        watch(f"{what} ({first.describe()})", 0.0, -1 if first.seconds > ARITHMETIC_BOUND else 0)
    mode: ExecutionMode = engine.call(check, plan, first, engine.memory)
    engine.checked[key] = plan.entries, mode
    return mode


def first_step(plan: Plan) -> FirstStep:
    """Validate the parts of a task, then measure a training step of one model.

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


def _first_trial(plan: Plan) -> Trial:
    """Return a trial of the entry with the smallest batch, so that a full-batch entry does not decide for all."""
    return plan.careful_trial(min(plan.entries, key=lambda entry: plan.batch_size(entry) or math.inf), 0)


def _measure_step(plan: Plan, task: Task, device: str) -> FirstStep:
    step: FirstStep = _try(plan, partial(measure_first_step, task, _first_trial(plan), device), device)
    return step


def check(plan: Plan, first: FirstStep | None = None, memory: float | None = None) -> ExecutionMode:
    """Train a few models of the task for a step, stacked and sequentially, and score them on a few examples.

    A model with a slow step, or whose small stack exceeds the memory limit, is tested without stacking.

    Args:
        plan: the race.
        first: result of `first_step`, if known.
        memory: memory limit of the race in bytes; half of the free memory when None.

    Returns:
        The execution mode. Sequential where a stack fails, computes other gradients, or is slower. On the device that
        the plan names; with `"auto"`, on a GPU if there is one, the task runs on it, and it is faster.

    Raises:
        TaskError: if the model, the loss, the metric or one of the optimizers fails.
        ValueError: if the device is not available.
    """
    if isinstance(plan.task, Loop):
        return check_loop(plan, plan.task)
    task, is_requested = cache_problem(plan.task), plan.device != "auto"
    first = first_step(plan) if first is None else first
    device = plan.device if is_requested else accelerator_type()
    on_cpu = _select_mode(plan, task, "cpu", first, memory)
    if device is None or device == "cpu":
        return on_cpu.mode
    try:
        on_device = _select_mode(plan, task, device, _measure_step(plan, task, device), memory)
        _try(plan, partial(_require_equal, on_cpu, on_device), device)
        if not is_requested and (slowdown := _gpu_slowdown(plan, task, on_cpu.mode, on_device.mode)) > SLOWER:
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
    """A step has other losses or gradients on a device than on the CPU."""


@dataclass(frozen=True)
class _DeviceCheck:
    """Execution mode on a device, with the losses and gradients of a step there."""

    mode: ExecutionMode
    losses: Tensor
    gradients: list[Tensor]


def _select_mode(plan: Plan, task: Task, device: str, first: FirstStep, memory: float | None) -> _DeviceCheck:
    """Select the execution mode on a device."""
    if rejection := first.reject_stack(WIDTH + 1, free(device) / 2 if memory is None else memory):
        return _check_one_model(plan, task, ExecutionMode(False, device=device, stack_rejection=rejection))
    entry = next(
        (entry for entry in plan.entries if not isinstance(entry.rule, TorchOptimizerAdapter)), plan.entries[0]
    )
    trials = [plan.careful_trial(entry, row % 2) for row in range(WIDTH)]
    sequential = ExecutionMode(stacked=False, device=device)
    with runtime_settings(device):
        losses, gradients, sequential_step = _try(plan, partial(_probe, task, trials, sequential), device)
        try:
            mode = ExecutionMode(compiled=plan.compiled, device=device)
            stacked_losses, stacked_gradients, stacked_step = _probe(task, trials, mode)
        except Exception as error:
            mode = replace(sequential, stack_rejection=Rejection(RejectionCause.FAILS, message=explain(error)))
        else:
            if not (_close([losses], [stacked_losses]) and _close(gradients, stacked_gradients)):
                mode = replace(sequential, stack_rejection=Rejection(RejectionCause.OTHER_GRADIENTS))
            elif (slowdown := _slowdown(stacked_step, sequential_step)) > SLOWER:
                mode = replace(sequential, stack_rejection=Rejection(RejectionCause.SLOWER, slowdown))
            elif device == "cpu":
                bound = free(device) / 2 if memory is None else memory

                def fits(count: int) -> bool:
                    return first.reject_stack(count, bound) is None

                widest = min(_widest_invariant(task, trial, fits) for trial in _trial_per_batch_size(plan))
                if widest < MIN_STACK:
                    mode = replace(sequential, stack_rejection=Rejection(RejectionCause.ROWS_DIFFER))
                elif widest < math.inf:
                    mode = replace(mode, widest=int(widest))
        for entry in plan.entries:
            if isinstance(entry.rule, TorchOptimizerAdapter):
                own = [plan.careful_trial(entry, seed) for seed in range(2)]
                _try(plan, partial(_probe, task, own, mode), device, f"optimizer {entry.name!r} on ")
    return _DeviceCheck(mode, losses, gradients)


def _check_one_model(plan: Plan, task: Task, mode: ExecutionMode) -> _DeviceCheck:
    """Train one model for a step, and step its weights once with every optimizer of another package."""
    others = [entry for entry in plan.entries if isinstance(entry.rule, TorchOptimizerAdapter)]
    trial = plan.careful_trial(plan.entries[0], 0)
    with runtime_settings(mode.device):
        stack = ModelStack(task, [trial], mode)
        index = stack.data.train[:, : min(EXAMPLES, trial.batch_size or EXAMPLES)]
        with SequentialRngMode(torch.default_generator):  # same noise as in a stack
            losses, computed = stack.gradients(*stack.data.load(index))
        pairs = zip(computed, stack.parameters.values(), strict=True)
        gradients = [torch.zeros_like(x) if g is None else g for g, x in pairs]
        on_cpu = placed(losses, CPU), placed(gradients, CPU)

        def step(own: Trial) -> None:
            with torch.no_grad():
                optimizers = StackedOptimizers([own], list(stack.parameters.values()))
                optimizers.step(gradients, 1.0)
                optimizers.eval()
                optimizers.train()

        for entry in others:
            own = plan.careful_trial(entry, 0)
            _try(plan, partial(step, own), mode.device, f"optimizer {entry.name!r} on ")
        _try(plan, partial(evaluate, stack, stack.data.valid[:, : _evaluation_size(task)]), mode.device)
    return _DeviceCheck(mode, *on_cpu)


def _evaluation_size(task: Task) -> int:
    """Return the number of examples of a trial evaluation: fewer where reading them may take long."""
    return min(EXAMPLES, task.batch_size) if isinstance(task.loaded, Stream) else EXAMPLES


def _require_equal(on_cpu: _DeviceCheck, on_device: _DeviceCheck) -> None:
    """Raise _OtherGradientsError unless a step has the same losses and gradients on both devices."""
    if not _close([on_cpu.losses, *on_cpu.gradients], [on_device.losses, *on_device.gradients]):
        raise _OtherGradientsError("it gives other gradients than the CPU")


def _try(plan: Plan, probe: Callable[[], Any], device: str, what: str = "") -> Any:
    try:
        return probe()
    except TaskError:
        raise
    except Exception as error:
        where, reason = ("", describe_error(error)) if device == "cpu" else (f" on {device}", explain(error))
        if what:
            reason = explain_optimizer_error(error)
        raise TaskError(f"{what}task {plan.task.name!r} cannot be raced{where}: {reason}.") from error


def _gpu_slowdown(plan: Plan, task: Task, cpu: ExecutionMode, gpu: ExecutionMode) -> float:
    """Return the ratio of the time per model and step on a GPU to that on all CPU cores."""
    trials = [plan.careful_trial(entry, 0) for entry in plan.entries]
    alike = [trial for trial in trials if trial.batch_size == trials[0].batch_size]
    # The time of a sequential model does not depend on their number.
    wide, narrow = WIDE if gpu.stacked else 1, WIDTH if cpu.stacked else 1
    on_cpu: float = seconds_of_one(task, alike, cpu, narrow) / joblib.cpu_count()
    return seconds_of_one(task, alike, gpu, wide) / on_cpu


def _slowdown(one: Callable[[], None], other: Callable[[], None]) -> float:
    """Return the ratio of two calls' durations, each the minimum of several, because noise only adds time."""
    least, started_at = [math.inf, math.inf], time.perf_counter()
    for turn in range(1, TURNS[1] + 1):
        for i, run in enumerate((one, other)):
            started = time.perf_counter()
            run()
            least[i] = min(least[i], time.perf_counter() - started)
        if turn >= TURNS[0] and (least[0] <= SLOWER * least[1] or time.perf_counter() - started_at > LONG):
            break
    return least[0] / least[1]


def _probe(task: Task, trials: Sequence[Trial], mode: ExecutionMode) -> tuple[Tensor, list[Tensor], Callable[[], None]]:
    """Return the losses and gradients of a step, and a function that repeats it; also test a step and an evaluation."""
    stack = ModelStack(task, trials, mode)
    index = stack.data.train[:, : min(EXAMPLES, trials[0].batch_size or EXAMPLES)]
    batch = stack.data.load(index)
    with (
        contextlib.nullcontext() if mode.stacked else SequentialRngMode(torch.default_generator)
    ):  # same noise as in a stack
        losses, each = stack.gradients(*batch)
    every = zip(each, stack.parameters.values(), strict=True)
    gradients = [(torch.zeros_like(x) if g is None else g)[: len(trials)] for g, x in every]
    stack.step(index, 1.0)
    evaluate(stack, stack.data.valid[:, :EXAMPLES])

    def repeat() -> None:
        stack.gradients(*batch)
        wait(stack.device)

    return placed(losses[: len(trials)], CPU), placed(gradients, CPU), repeat


def _trial_per_batch_size(plan: Plan) -> list[Trial]:
    """Return a trial of each batch size of the race."""
    first = {plan.batch_size(entry): entry for entry in reversed(plan.entries)}
    return [plan.careful_trial(entry, 0) for entry in first.values()]


def _widest_invariant(task: Task, trial: Trial, fits: Callable[[int], bool]) -> float:
    """Return the largest stack width with bitwise row invariance; 0 if there is none.

    Args:
        task: the problem.
        trial: the trial to train.
        fits: predicate of a width: memory suffices for such a stack.
    """
    stack = ModelStack(task, [trial] * WIDTHS[0])
    batch = stack.data.load(stack.data.train[:, : trial.batch_size or stack.data.train.shape[1]])
    if not any(stack.traced_step(kind, *batch).unreviewed for kind in ("train", "score")):
        return math.inf if _is_row_invariant(task, trial, WIDTHS) else 0
    started_at, widest = time.perf_counter(), 0
    for width in capacities(WIDEST):
        if not _is_row_invariant(task, trial, dict.fromkeys((WIDTHS[0], width))):
            return 0
        widest = width
        if width >= MIN_STACK and (time.perf_counter() - started_at > CHECKED or not fits(2 * width + 1)):
            break
    return widest


def _is_row_invariant(task: Task, trial: Trial, widths: Iterable[int]) -> bool:
    """Test bitwise row invariance of stacks of one model, in batches of every size of the race."""
    reference: list[Tensor] = []
    for width in widths:
        results = _results(task, trial, width)
        reference = reference or [x[0] for x in results]
        pairs = zip(results, reference, strict=True)
        if not all(torch.equal(x[row], own) or own.isnan().any() for x, own in pairs for row in range(width)):
            return False
    return True


def _results(task: Task, trial: Trial, width: int) -> list[Tensor]:
    """Return losses, gradients, evaluation losses and buffers of a stack of one model, in batches of every size."""
    stack = ModelStack(task, [trial] * width)
    count, valid = stack.data.train.shape[1], stack.data.valid.shape[1]
    batch = trial.batch_size or count
    many = batch * BATCH_FACTOR
    results = []
    for size in dict.fromkeys((batch, count % batch or batch)):
        losses, gradients = stack.gradients(*stack.data.load(stack.data.train[:, :size]))
        results += [losses, *(g for g in gradients if g is not None)]
    for size in dict.fromkeys((min(many, valid), valid % many or many)):
        results += stack.outputs(*stack.data.load(stack.data.valid[:, :size]))[1:]
    return [*results, *stack.buffers.values()]


def _close(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> bool:
    """Test whether two results differ by rounding alone, relative to the largest values of each model."""
    flat = [[x.double().reshape(len(x), -1) for x in results if x.numel()] for results in (first, second)]
    pairs = list(zip(*flat, strict=True))
    largest = torch.stack([a.abs().amax(1) for a, _ in pairs]).amax(0).clamp(min=1e-12)[:, None]
    # Values that are zero in exact arithmetic, such as the gradient of a bias before a norm, are pure rounding error.
    return all(bool(((a - b).abs() <= 1e-2 * a.abs().amax(1, True) + 1e-3 * largest).all()) for a, b in pairs)
