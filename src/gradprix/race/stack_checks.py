"""Checks before a race that decide if models can be trained in stacks on a device.

A stack must first run without an error. Then the functions in `STACK_CHECKS` compare it with models that are trained
one at a time. Each returns None, or a `Rejection` that ends the checks. `text/execution.py` formats rejections as
sentences. `Trial.stack_key` determines which trials can share a stack.
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradprix.tasks import Task
from gradprix.tasks.lazy_dataset import Stream
from gradprix.tasks.task import TaskError
from gradprix.training import MIN_STACK, FirstStep, ModelStack, Trial, evaluate, runtime_settings
from gradprix.training.evaluation import BATCH_FACTOR
from gradprix.training.execution_mode import ExecutionMode, Rejection, RejectionCause
from gradprix.training.faults import describe_error
from gradprix.training.optimizer_errors import describe_code_error, explain_optimizer_error
from gradprix.training.rng import SequentialRngMode
from gradprix.training.stacking_errors import explain
from gradprix.training.torch_optimizer_adapter import TorchOptimizerAdapter, needs_closure
from gradprix.training.update_cost import MAX_TIMED_SIDE, largest_side, without_update
from gradprix.utils.devices import CPU, free, placed, wait
from gradprix.utils.wording import format_list

from .entry import Entry
from .plan import Plan
from .row_invariance import widest_invariant

PROBED_EXAMPLES = 64
"""Maximum number of examples in a step or an evaluation that only tests if the model works."""
SMALL_EVALUATION = 256
"""Maximum size of an evaluation batch that is tested as a whole."""
PROBED_MODELS = 8
"""Number of models in a stack that is tested. With this number, stacking should already be faster."""
MAX_SLOWDOWN = 1.25
"""Maximum slowdown of a stack relative to sequential models, or of a GPU relative to the CPU. It is well above 1, so
that timing noise does not cause a rejection."""
TIMINGS, TIMING_SECONDS = (3, 20), 5.0
"""Minimum and maximum number of timing repetitions, and their time limit in seconds. After the minimum, timing is
continued only while a stack seems to be slower."""


class Step(NamedTuple):
    """Result of a training step of several models.

    Args:
        losses: loss of each model, `[models]`.
        gradients: gradients of each parameter, `[models, ...]`.
        repeat: function that computes the same step again, for timing.
    """

    losses: Tensor
    gradients: list[Tensor]
    repeat: Callable[[], None]

    @property
    def results(self) -> list[Tensor]:
        """Losses and gradients in one list."""
        return [self.losses, *self.gradients]

    def on_cpu(self) -> "Step":
        """Return the step with its tensors on the CPU."""
        return Step(placed(self.losses, CPU), placed(self.gradients, CPU), self.repeat)


@dataclass(frozen=True)
class StackTest:
    """Training step of the same models, computed one model at a time and in a stack.

    Args:
        plan: plan of the race.
        task: task of the race.
        device: device of the models.
        sequential: step computed one model at a time.
        stacked: step computed in a stack.
        fits: function that returns True if a stack of a given width fits into memory.
        precision: machine epsilon of the numbers that the step computes, see `FirstStep`.
    """

    plan: Plan
    task: Task
    device: str
    sequential: Step
    stacked: Step
    fits: Callable[[int], bool]
    precision: float

    @cached_property
    def widest(self) -> float:
        """Largest stack width with bitwise row invariance at every batch size of the race; infinite on other devices.

        See `widest_invariant`. Row invariance is required only on the CPU.
        """
        if self.device != "cpu":
            return math.inf
        entries = {self.plan.batch_size(entry): entry for entry in reversed(self.plan.entries)}
        trials = [self.plan.careful_trial(entry, 0) for entry in entries.values()]
        return min(widest_invariant(self.task, trial, self.fits) for trial in trials)


def check_gradients(test: StackTest) -> Rejection | None:
    """Reject a stack whose losses or gradients differ from those of sequential models by more than rounding errors."""
    one, other = test.sequential, test.stacked
    pairs = ([one.losses], [other.losses]), (one.gradients, other.gradients)
    same = all(is_close(*pair, test.precision) for pair in pairs)
    return None if same else Rejection(RejectionCause.OTHER_GRADIENTS)


def check_speed(test: StackTest) -> Rejection | None:
    """Reject a stack that is slower than sequential models by more than `MAX_SLOWDOWN`."""
    factor = slowdown(test.stacked.repeat, test.sequential.repeat)
    return Rejection(RejectionCause.SLOWER, factor) if factor > MAX_SLOWDOWN else None


def check_rows(test: StackTest) -> Rejection | None:
    """Reject a stack in which the numbers of a model depend on its row, or on the width of the stack."""
    return Rejection(RejectionCause.ROWS_DIFFER) if test.widest < MIN_STACK else None


STACK_CHECKS = (check_gradients, check_speed, check_rows)
"""Checks of a stack, in the order in which they are performed."""


@dataclass(frozen=True)
class DeviceCheck:
    """Result of the checks on a device.

    Args:
        mode: execution mode on the device.
        results: losses and gradients of a training step on the device.
    """

    mode: ExecutionMode
    results: list[Tensor]


def select_mode(plan: Plan, task: Task, device: str, first: FirstStep, memory: float | None) -> DeviceCheck:
    """Decide whether the models of a race are trained in stacks or one at a time on a device.

    All optimizers from other packages are tested on the device as well, because their code may not support it.

    Args:
        plan: plan of the race.
        task: task of the race.
        device: device of the models.
        first: time and memory of a training step of one model, measured before.
        memory: memory limit in bytes; None means half of the free memory of the device.

    Raises:
        TaskError: if the model, the loss, the metric or one of the optimizers fails.
    """
    limit = free(device) / 2 if memory is None else memory
    ragged = task.loaded.ragged
    rejection = None if ragged is None else Rejection(RejectionCause.RAGGED, message=ragged)
    if with_closure := [entry.name for entry in plan.entries if needs_closure(entry.rule)]:
        rejection = rejection or Rejection(RejectionCause.CLOSURE, message=format_list(with_closure))
    if rejection := rejection or first.reject_stack(PROBED_MODELS + 1, limit):
        return _check_one_model(plan, task, ExecutionMode(False, device=device, stack_rejection=rejection))
    rules = (entry for entry in plan.entries if not isinstance(entry.rule, TorchOptimizerAdapter))
    entry = next(rules, plan.entries[0])
    # Without code of other optimizers, so that their errors are not taken for those of the task.
    trials = [without_update(plan.careful_trial(entry, row % 2)) for row in range(PROBED_MODELS)]
    sequential = ExecutionMode(stacked=False, device=device)
    with runtime_settings(device):
        step = attempt(plan, partial(_probe, task, trials, sequential), device)
        mode = ExecutionMode(compiled=plan.compiled, device=device)
        try:
            stacked = _probe(task, trials, mode)
        except Exception as error:
            mode = replace(sequential, stack_rejection=Rejection(RejectionCause.FAILS, message=explain(error)))
        else:
            test = StackTest(plan, task, device, step, stacked, partial(_fits, first, limit), first.precision)
            rejections = (check(test) for check in STACK_CHECKS)
            if rejection := next(filter(None, rejections), None):
                mode = replace(sequential, stack_rejection=rejection)
            elif test.widest < math.inf:
                mode = replace(mode, widest=int(test.widest))
        for entry in _entries_to_test(plan, step.gradients):
            own = [plan.careful_trial(entry, seed) for seed in range(2)]
            attempt(plan, partial(_probe, task, own, mode), device, f"optimizer {entry.name!r} on ")
    return DeviceCheck(mode, step.results)


def _entries_to_test(plan: Plan, gradients: Sequence[Tensor]) -> list[Entry]:
    """Return the entries whose optimizers are tested: those that step one model at a time.

    Built-in optimizers that would decompose large matrices are left out: a step may take minutes.

    Args:
        plan: plan of the race.
        gradients: gradients of the parameters, `[models, ...]` each.
    """
    shapes = [g.shape[1:] for g in gradients]
    adapted = [entry for entry in plan.entries if isinstance(entry.rule, TorchOptimizerAdapter)]
    return [each for each in adapted if largest_side(plan.careful_trial(each, 0), shapes) <= MAX_TIMED_SIDE]


def _fits(first: FirstStep, limit: float, width: int) -> bool:
    """Return True if a stack of a given width fits into the memory limit."""
    return first.reject_stack(width, limit) is None


def _check_one_model(plan: Plan, task: Task, mode: ExecutionMode) -> DeviceCheck:
    """Check a device without stacking: compute a step of one model, and test all optimizers from other packages."""
    trial = without_update(plan.careful_trial(plan.entries[0], 0))
    with runtime_settings(mode.device):
        stack = ModelStack(task, [trial], mode)
        step = _train_step(stack, _first_examples(stack, trial), mode, count=1)
        results = step.on_cpu().results

        def update(own: Trial) -> None:
            if needs_closure(own.rule):
                own_stack = ModelStack(task, [own], mode)
                own_stack.step(_first_examples(own_stack, own), 1.0)
                return
            with torch.no_grad():
                optimizers = stack.make_optimizers([own])
                optimizers.step(step.gradients, 1.0)
                optimizers.eval()
                optimizers.train()

        for entry in _entries_to_test(plan, step.gradients):
            own = plan.careful_trial(entry, 0)
            attempt(plan, partial(update, own), mode.device, f"optimizer {entry.name!r} on ")
        # Reading examples of a lazy dataset may take long, so fewer are used.
        many = min(PROBED_EXAMPLES, task.batch_size) if isinstance(task.loaded, Stream) else PROBED_EXAMPLES
        attempt(plan, partial(evaluate, stack, stack.data.valid[:, :many]), mode.device)
    return DeviceCheck(mode, results)


def _probe(task: Task, trials: Sequence[Trial], mode: ExecutionMode) -> Step:
    """Compute a training step of several models, and test that an optimizer step and an evaluation succeed.

    Returns:
        The training step, with its tensors on the CPU.
    """
    stack = ModelStack(task, trials, mode)
    index = _first_examples(stack, trials[0])
    step = _train_step(stack, index, mode, len(trials))
    stack.step(index, 1.0)
    size = index.shape[1] * BATCH_FACTOR  # a small batch is tested whole, since a step is compiled for each size
    evaluate(stack, stack.data.valid[:, : size if size <= SMALL_EVALUATION else PROBED_EXAMPLES])
    return step.on_cpu()


def _first_examples(stack: ModelStack, trial: Trial) -> Tensor:
    """Return the indices of the training examples with which each model is tested."""
    train: Tensor = stack.data.train
    return train[:, : min(PROBED_EXAMPLES, trial.batch_size or PROBED_EXAMPLES)]


def _train_step(stack: ModelStack, index: Tensor, mode: ExecutionMode, count: int) -> Step:
    """Compute the losses and gradients of a training step.

    Args:
        stack: models to train.
        index: indices of the training examples of each model.
        mode: execution mode.
        count: number of models. Further rows of the stack, which are padding, are left out.
    """
    batch = stack.data.read(index)
    same_noise = contextlib.nullcontext() if mode.stacked else SequentialRngMode(torch.default_generator)
    with same_noise:  # draws the same random numbers as a stack
        losses, computed = stack.gradients(*batch)
    pairs = zip(computed, stack.parameters.values(), strict=True)
    gradients = [(torch.zeros_like(x) if g is None else g)[:count] for g, x in pairs]

    def repeat() -> None:
        stack.gradients(*batch)
        wait(stack.device)

    return Step(losses[:count], gradients, repeat)


def attempt(plan: Plan, function: Callable[[], Any], device: str, what: str = "") -> Any:
    """Call a function that trains models, and raise its errors as `TaskError`.

    Args:
        plan: plan of the race.
        function: function to call.
        device: device of the models.
        what: beginning of the error message, if it is an optimizer that may fail.

    Raises:
        TaskError: if the function fails.
    """
    try:
        return function()
    except TaskError:
        raise
    except Exception as error:
        where, reason = ("", describe_error(error)) if device == "cpu" else (f" on {device}", explain(error))
        if what:
            reason = explain_optimizer_error(error) or describe_code_error(error)
        raise TaskError(f"{what}task {plan.task.name!r} cannot be raced{where}: {reason}.") from error


def slowdown(one: Callable[[], None], other: Callable[[], None]) -> float:
    """Return the ratio of the durations of two functions.

    Each duration is the minimum over several calls, because noise can only increase it.
    """
    least, started_at = [math.inf, math.inf], time.perf_counter()
    for turn in range(1, TIMINGS[1] + 1):
        for i, run in enumerate((one, other)):
            started = time.perf_counter()
            run()
            least[i] = min(least[i], time.perf_counter() - started)
        is_fast = least[0] <= MAX_SLOWDOWN * least[1]
        if turn >= TIMINGS[0] and (is_fast or time.perf_counter() - started_at > TIMING_SECONDS):
            break
    return least[0] / least[1]


def is_close(first: Sequence[Tensor], second: Sequence[Tensor], precision: float = 0.0) -> bool:
    """Return True if two results differ only by rounding errors.

    Tolerances are relative to the largest values of each model.

    Args:
        first: tensors of shape `[models, ...]`.
        second: tensors to compare with, of the same shapes.
        precision: machine epsilon of the computation, which may be below the precision of the results.
    """
    relative, absolute = max(1e-2, 8 * precision), max(1e-3, precision)
    flat = [[x.double().reshape(len(x), -1) for x in results if x.numel()] for results in (first, second)]
    pairs = list(zip(*flat, strict=True))
    largest = torch.stack([a.abs().amax(1) for a, _ in pairs]).amax(0).clamp(min=1e-12)[:, None]
    # Gradients that are zero in exact arithmetic, such as that of a bias before a norm, are nothing but rounding error.
    return all(bool(((a - b).abs() <= relative * a.abs().amax(1, True) + absolute * largest).all()) for a, b in pairs)
