"""Cost of the optimizer steps that may take longer than the gradients.

Rules that a kernel steps for a whole stack are elementwise: their steps take a small part of a training step. All other
optimizers step one model at a time. They may multiply large matrices, and have more work in some steps than in others:
SOAP decomposes its preconditioners in every tenth step. So their steps are timed alone, over whole periods.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from gradprix.rules import Rule, sgd
from gradprix.rules.ir import Call, Hyper, Number, walk
from gradprix.tasks import Task
from gradprix.utils.devices import wait

from .execution_mode import ExecutionMode
from .model_stack import ModelStack
from .optimizers import StackedOptimizers
from .runtime_settings import runtime_settings
from .torch_optimizer_adapter import TorchOptimizerAdapter, needs_closure
from .trial import Trial

MIN_STEPS, MAX_SECONDS = 5, 10.0
"""Minimum number of timed steps, and seconds after which no further step is timed."""
UNKNOWN_PERIOD = 20
"""Number of timed steps of an optimizer that is not made from a rule. Preconditioners are usually computed in every
step, or in every fifth, tenth or twentieth, so that this number covers whole periods."""
MAX_TIMED_SIDE = 1024
"""Side of the largest square state that is timed. Its decomposition takes less than a second, that of ten times the
side minutes. The time of larger sides is extrapolated from this one and its half: between smaller sides, operations
that grow more slowly than the cube of the side take most of the time."""
SQUARE = ("rows×rows", "columns×columns")
"""Kinds of state that are square matrices."""


@dataclass(frozen=True)
class UpdateCost:
    """Cost of an optimizer step of one model.

    Args:
        seconds: mean duration of a step over a whole period.
        side: side of the largest square matrix among the state; 0 without such state.
    """

    seconds: float
    side: int = 0


def is_costly(optimizer: Rule | TorchOptimizerAdapter) -> bool:
    """Return True if the step of an optimizer may take longer than the gradients, so that it is timed alone."""
    return isinstance(optimizer, TorchOptimizerAdapter)


def without_update(trial: Trial) -> Trial:
    """Return a trial of the same training step with the cheapest optimizer, if its own must be timed alone."""
    return replace(trial, rule=sgd, values=sgd.values(lr=1e-3)) if is_costly(trial.rule) else trial


def underlying_rule(optimizer: Rule | TorchOptimizerAdapter) -> Rule | None:
    """Return the rule from which an optimizer is made; None if there is none."""
    return optimizer if isinstance(optimizer, Rule) else getattr(optimizer.make, "rule", None)


def update_period(trial: Trial) -> int:
    """Return the number of steps after which the work of an optimizer repeats.

    A rule has other work in every k-th step if it contains a remainder `t % k`. For optimizers that are not made from a
    rule, the result is `UNKNOWN_PERIOD`.

    Example:
        >>> from gradprix.rules import soap
        >>> update_period(Trial(soap, soap.values(precondition_frequency=8), 0, 32, 1, "cosine", False))
        8
    """
    rule = underlying_rule(trial.rule)
    if rule is None:
        return UNKNOWN_PERIOD
    values = _values(rule, trial)
    nodes = (node for assign in rule.specialize(values).assigns for node in walk(assign.value))
    divisors = [node.arguments[1] for node in nodes if isinstance(node, Call) and node.function == "%"]
    known = [values[each.name] for each in divisors if isinstance(each, Hyper)]
    known += [each.value for each in divisors if isinstance(each, Number)]
    return math.lcm(*(max(1, round(period)) for period in known))


def largest_side(trial: Trial, shapes: Sequence[torch.Size]) -> int:
    """Return the side of the largest square state of an optimizer, given the shapes of the parameters; 0 without."""
    rule = underlying_rule(trial.rule)
    if rule is None:
        return 0
    values = _values(rule, trial)
    squares = [state for state in rule.active_state(values).values() if state.kind in SQUARE]
    sides = (state.shape(tuple(shape), values) for state in squares for shape in shapes)
    return max((side[0] for side in sides if side is not None), default=0)


def _values(rule: Rule, trial: Trial) -> dict[str, Any]:
    """Return the values of all hyperparameters of the rule from which the optimizer of a trial is made."""
    return {name: trial.values.get(name, default) for name, default in rule.hyperparameters.items()}


def measure_updates(task: Task, trials: Sequence[Trial], mode: ExecutionMode) -> dict[str, UpdateCost]:
    """Measure the optimizer steps of one model that must be timed alone.

    Args:
        task: the task.
        trials: a trial of each entry.
        mode: the execution mode of the race, which has the device.

    Returns:
        The cost of a step by name of the entry, for the entries whose optimizer may be costly.
    """
    costly = {trial.entry_name: trial for trial in trials if is_costly(trial.rule)}
    if not costly:
        return {}
    with runtime_settings(mode.device):
        stack = ModelStack(task, [without_update(trials[0])], ExecutionMode(stacked=False, device=mode.device))
        shapes = [x[0].shape for x in stack.parameters.values()]
        return {
            name: UpdateCost(_seconds_of_update(stack, trial, shapes), largest_side(trial, shapes))
            for name, trial in costly.items()
        }


def _seconds_of_update(stack: ModelStack, trial: Trial, shapes: Sequence[torch.Size]) -> float:
    """Return the mean duration of an optimizer step of one model in seconds.

    Args:
        stack: a model of the task.
        trial: the optimizer.
        shapes: shapes of the parameters.
    """
    if needs_closure(trial.rule):
        own = ModelStack(stack.task, [trial], stack.mode)
        index = own.data.train[:, : trial.batch_size or own.data.train.shape[1]]
        gradient = mean_seconds(partial(own.batch_gradients, index), MIN_STEPS, own.device)
        return max(0.0, mean_seconds(partial(own.step, index, 1.0), MIN_STEPS, own.device) - gradient)
    if largest_side(trial, shapes) <= MAX_TIMED_SIDE:
        return _time_optimizer(stack.make_optimizers([trial]), list(stack.parameters.values()), trial)
    large = [shape for shape in shapes if largest_side(trial, [shape]) > MAX_TIMED_SIDE]
    small = [shape for shape in shapes if shape not in large]
    seconds = _time_shapes(trial, small, stack.device) if small else 0.0
    return seconds + sum(_extrapolate(trial, shape, stack.device) for shape in large)


def _extrapolate(trial: Trial, shape: torch.Size, device: torch.device) -> float:
    """Estimate the seconds of a step on a large matrix from the power law between two smaller ones."""
    side = largest_side(trial, [shape])

    def measure(timed_side: int) -> float:
        """Time a matrix whose sides with square state are shortened."""
        sides = [timed_side if timed_side < each <= side else each for each in (shape[0], math.prod(shape[1:]))]
        return _time_shapes(trial, [torch.Size(sides)], device)

    half, whole = measure(MAX_TIMED_SIDE // 2), measure(MAX_TIMED_SIDE)
    exponent = min(3.0, max(1.0, math.log2(whole / half)))
    return whole * math.pow(side / MAX_TIMED_SIDE, exponent)


def _time_shapes(trial: Trial, shapes: Sequence[torch.Size], device: torch.device) -> float:
    """Return the mean duration of an optimizer step on parameters of these shapes in seconds."""
    parameters = [torch.zeros(1, *shape, device=device) for shape in shapes]
    return _time_optimizer(StackedOptimizers([trial], parameters), parameters, trial)


def _time_optimizer(optimizers: StackedOptimizers, parameters: Sequence[torch.Tensor], trial: Trial) -> float:
    """Return the mean duration of a step over a whole period in seconds."""
    generator = torch.Generator().manual_seed(0)  # so that torch's global generator remains as it is
    gradients = [torch.randn(x.shape, generator=generator).to(x) for x in parameters]
    period = update_period(trial)
    with torch.no_grad():
        step = partial(optimizers.step, gradients, 1.0)
        return mean_seconds(step, period * math.ceil(MIN_STEPS / period), parameters[0].device)


def mean_seconds(step: Callable[[], object], steps: int, device: torch.device) -> float:
    """Return the mean duration of a number of steps after the first, in seconds.

    The first step also allocates and compiles. If it takes `MAX_SECONDS`, it is the only one, and counts.

    Args:
        step: function that performs a step.
        steps: number of steps.
        device: device of the step.
    """
    times: list[float] = []
    for _ in range(1 + steps):
        started = time.perf_counter()
        step()
        wait(device)
        times.append(time.perf_counter() - started)
        if sum(times) > MAX_SECONDS:
            break
    timed = times[1:] or times
    return sum(timed) / len(timed)
