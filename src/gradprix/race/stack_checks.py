"""Checks before a race that decide whether models can be trained in stacks on a device.

Which trials share a stack follows from `Trial.stack_key`.

`STACK_CHECKS` lists the checks of a stack that runs. Each returns None or a `Rejection`, which `text/execution.py` puts
in words; the first rejection decides.
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
from gradprix.training import MIN_STACK, FirstStep, ModelStack, StackedOptimizers, Trial, evaluate, runtime_settings
from gradprix.training.evaluation import BATCH_FACTOR
from gradprix.training.execution_mode import ExecutionMode, Rejection, RejectionCause
from gradprix.training.faults import describe_error
from gradprix.training.optimizer_errors import explain_optimizer_error
from gradprix.training.rng import SequentialRngMode
from gradprix.training.stacking_errors import explain
from gradprix.training.torch_optimizer_adapter import TorchOptimizerAdapter
from gradprix.utils.devices import CPU, free, placed, wait

from .plan import Plan
from .row_invariance import widest_invariant

PROBED_EXAMPLES = 64
"""Maximum number of examples of a step or an evaluation that only tests whether it works."""
SMALL_EVALUATION = 256
"""Number of examples up to which a whole evaluation batch is tested."""
PROBED_MODELS = 8
"""Models in a trial stack: enough for stacking to be faster."""
MAX_SLOWDOWN = 1.25
"""Slowdown of a stack against sequential models, or of a GPU against the CPU, above which it is rejected: far enough
from 1 that timing noise does not decide."""
TIMINGS, TIMING_SECONDS = (3, 20), 5.0
"""Minimum and maximum number of timing repetitions, and their limit in seconds; repetitions beyond the minimum happen
only while a stack looks slower."""


class Step(NamedTuple):
    """Losses and gradients of a training step, `[models, ...]`, and a function that repeats it."""

    losses: Tensor
    gradients: list[Tensor]
    repeat: Callable[[], None]

    @property
    def results(self) -> list[Tensor]:
        """Losses and gradients."""
        return [self.losses, *self.gradients]

    def on_cpu(self) -> "Step":
        """Return the step with its tensors on the CPU."""
        return Step(placed(self.losses, CPU), placed(self.gradients, CPU), self.repeat)


@dataclass(frozen=True)
class StackTest:
    """A step of the same models, one at a time and in a stack.

    Args:
        plan: the race.
        task: its task.
        device: the device of the models.
        sequential: the step of the models one at a time.
        stacked: the step of their stack.
        fits: predicate of a width: memory suffices for such a stack.
    """

    plan: Plan
    task: Task
    device: str
    sequential: Step
    stacked: Step
    fits: Callable[[int], bool]

    @cached_property
    def widest(self) -> float:
        """The largest stack width with bitwise row invariance, tested on the CPU at every batch size of the race."""
        if self.device != "cpu":
            return math.inf
        entries = {self.plan.batch_size(entry): entry for entry in reversed(self.plan.entries)}
        trials = [self.plan.careful_trial(entry, 0) for entry in entries.values()]
        return min(widest_invariant(self.task, trial, self.fits) for trial in trials)


def check_gradients(test: StackTest) -> Rejection | None:
    """Reject a stack whose losses or gradients differ from those of sequential models by more than rounding."""
    one, other = test.sequential, test.stacked
    same = is_close([one.losses], [other.losses]) and is_close(one.gradients, other.gradients)
    return None if same else Rejection(RejectionCause.OTHER_GRADIENTS)


def check_speed(test: StackTest) -> Rejection | None:
    """Reject a stack that is slower than sequential models."""
    factor = slowdown(test.stacked.repeat, test.sequential.repeat)
    return Rejection(RejectionCause.SLOWER, factor) if factor > MAX_SLOWDOWN else None


def check_rows(test: StackTest) -> Rejection | None:
    """Reject a stack in which a model's numbers depend on its row or on the width."""
    return Rejection(RejectionCause.ROWS_DIFFER) if test.widest < MIN_STACK else None


STACK_CHECKS = (check_gradients, check_speed, check_rows)


@dataclass(frozen=True)
class DeviceCheck:
    """Execution mode on a device, with the losses and gradients of a step there."""

    mode: ExecutionMode
    results: list[Tensor]


def select_mode(plan: Plan, task: Task, device: str, first: FirstStep, memory: float | None) -> DeviceCheck:
    """Select the execution mode on a device, and train a model with every optimizer of another package there.

    Raises:
        TaskError: if the model, the loss, the metric or one of the optimizers fails.
    """
    limit = free(device) / 2 if memory is None else memory
    if rejection := first.reject_stack(PROBED_MODELS + 1, limit):
        return _check_one_model(plan, task, ExecutionMode(False, device=device, stack_rejection=rejection))
    rules = (entry for entry in plan.entries if not isinstance(entry.rule, TorchOptimizerAdapter))
    entry = next(rules, plan.entries[0])
    trials = [plan.careful_trial(entry, row % 2) for row in range(PROBED_MODELS)]
    sequential = ExecutionMode(stacked=False, device=device)
    with runtime_settings(device):
        step = attempt(plan, partial(_probe, task, trials, sequential), device)
        mode = ExecutionMode(compiled=plan.compiled, device=device)
        try:
            stacked = _probe(task, trials, mode)
        except Exception as error:
            mode = replace(sequential, stack_rejection=Rejection(RejectionCause.FAILS, message=explain(error)))
        else:
            test = StackTest(plan, task, device, step, stacked, lambda width: first.reject_stack(width, limit) is None)
            rejections = (check(test) for check in STACK_CHECKS)
            if rejection := next(filter(None, rejections), None):
                mode = replace(sequential, stack_rejection=rejection)
            elif test.widest < math.inf:
                mode = replace(mode, widest=int(test.widest))
        for entry in plan.entries:
            if isinstance(entry.rule, TorchOptimizerAdapter):
                own = [plan.careful_trial(entry, seed) for seed in range(2)]
                attempt(plan, partial(_probe, task, own, mode), device, f"optimizer {entry.name!r} on ")
    return DeviceCheck(mode, step.results)


def _check_one_model(plan: Plan, task: Task, mode: ExecutionMode) -> DeviceCheck:
    """Train one model for a step, and step its weights once with every optimizer of another package."""
    trial = plan.careful_trial(plan.entries[0], 0)
    with runtime_settings(mode.device):
        stack = ModelStack(task, [trial], mode)
        step = _train_step(stack, _first_examples(stack, trial), mode, count=1)
        results = step.on_cpu().results

        def update(own: Trial) -> None:
            with torch.no_grad():
                optimizers = StackedOptimizers([own], list(stack.parameters.values()))
                optimizers.step(step.gradients, 1.0)
                optimizers.eval()
                optimizers.train()

        for entry in plan.entries:
            if isinstance(entry.rule, TorchOptimizerAdapter):
                own = plan.careful_trial(entry, 0)
                attempt(plan, partial(update, own), mode.device, f"optimizer {entry.name!r} on ")
        # Fewer examples where reading them may take long.
        many = min(PROBED_EXAMPLES, task.batch_size) if isinstance(task.loaded, Stream) else PROBED_EXAMPLES
        attempt(plan, partial(evaluate, stack, stack.data.valid[:, :many]), mode.device)
    return DeviceCheck(mode, results)


def _probe(task: Task, trials: Sequence[Trial], mode: ExecutionMode) -> Step:
    """Return a step of models that also pass an optimizer step and an evaluation."""
    stack = ModelStack(task, trials, mode)
    index = _first_examples(stack, trials[0])
    step = _train_step(stack, index, mode, len(trials))
    stack.step(index, 1.0)
    size = index.shape[1] * BATCH_FACTOR  # a batch of the race if it is small, since a step is compiled for each size
    evaluate(stack, stack.data.valid[:, : size if size <= SMALL_EVALUATION else PROBED_EXAMPLES])
    return step.on_cpu()


def _first_examples(stack: ModelStack, trial: Trial) -> Tensor:
    train: Tensor = stack.data.train
    return train[:, : min(PROBED_EXAMPLES, trial.batch_size or PROBED_EXAMPLES)]


def _train_step(stack: ModelStack, index: Tensor, mode: ExecutionMode, count: int) -> Step:
    """Compute the losses and gradients of a step of the first models of a stack, without the rows that pad it."""
    batch = stack.data.read(index)
    same_noise = contextlib.nullcontext() if mode.stacked else SequentialRngMode(torch.default_generator)
    with same_noise:  # as in a stack
        losses, computed = stack.gradients(*batch)
    pairs = zip(computed, stack.parameters.values(), strict=True)
    gradients = [(torch.zeros_like(x) if g is None else g)[:count] for g, x in pairs]

    def repeat() -> None:
        stack.gradients(*batch)
        wait(stack.device)

    return Step(losses[:count], gradients, repeat)


def attempt(plan: Plan, function: Callable[[], Any], device: str, what: str = "") -> Any:
    """Call a function that trains models; its errors become errors of the task, or of an optimizer that `what` names.

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
            reason = explain_optimizer_error(error)
        raise TaskError(f"{what}task {plan.task.name!r} cannot be raced{where}: {reason}.") from error


def slowdown(one: Callable[[], None], other: Callable[[], None]) -> float:
    """Return the ratio of two calls' durations, each the minimum of several, because noise only adds time."""
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


def is_close(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Test whether two results differ by rounding alone, relative to the largest values of each model."""
    flat = [[x.double().reshape(len(x), -1) for x in results if x.numel()] for results in (first, second)]
    pairs = list(zip(*flat, strict=True))
    largest = torch.stack([a.abs().amax(1) for a, _ in pairs]).amax(0).clamp(min=1e-12)[:, None]
    # Values that are zero in exact arithmetic, such as the gradient of a bias before a norm, are pure rounding error.
    return all(bool(((a - b).abs() <= 1e-2 * a.abs().amax(1, True) + 1e-3 * largest).all()) for a, b in pairs)
