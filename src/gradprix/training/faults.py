"""Errors in a task's own code during training: detection of those due to divergence, and error messages."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradprix.tasks import Task
from gradprix.tasks.task import TaskError, first_line
from gradprix.tasks.user_code import users_line

from .optimizer_errors import describe_code_error
from .record_step import RECORDING
from .trial import Trial


class NanWatch(TorchDispatchMode):
    """Record whether an operation of a model computes a NaN while this mode is active."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: bool = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as in `Recorder`

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and check its result for NaN."""
        result = function(*args, **(kwargs or {}))
        self.seen = self.seen or (not RECORDING.get() and _has_nan(tree_leaves(result)))
        return result


def failed_on_nan(weights: Iterable[Tensor], run: Callable[[], Any]) -> bool:
    """Return True if an error may be due to the divergence of a model.

    This is the case if a weight is not finite, or if the code computes a NaN before it fails.

    Args:
        weights: the model's weights.
        run: runs the failing code again.
    """
    if any(x.is_floating_point() and not bool(x.isfinite().all()) for x in weights):
        return True
    watch = NanWatch()
    with suppress(Exception), watch:
        run()
    return watch.seen


def has_nan(output: Any) -> bool:
    """Return True if a model's output has a NaN."""
    return _has_nan(tree_leaves(output))


def task_error(task: Task, what: str, trials: Sequence[Trial], error: Exception) -> TaskError:
    """Return a `TaskError` that states which part of a task failed, with which optimizers, why and in which line.

    Args:
        task: the task.
        what: the part of the task that failed, such as `"its metric"`.
        trials: the trials whose models were trained or evaluated.
        error: the original exception; a `TaskError` is returned unchanged.
    """
    if isinstance(error, TaskError):
        return error
    names = " or ".join(dict.fromkeys(trial.entry_name for trial in trials))
    context = f"with {names}"
    if len({trial.key for trial in trials}) == 1 and "lr" in trials[0].values:
        context += f" at learning rate {trials[0].values['lr']:g}, seed {trials[0].seed}"
    task_failure = TaskError(
        f"task {task.name!r} cannot be raced: {what} fails {context}: {describe_code_error(error)}."
    )
    task_failure.__cause__ = error
    return task_failure


def describe_error(error: Exception) -> str:
    """Return an exception's message, followed in parentheses by its type and the line of the user's code.

    The type is omitted for common exceptions, such as `ValueError`, whose message is clear without it.
    """
    message, kind = first_line(error), type(error).__name__
    is_clear = isinstance(error, ValueError | RuntimeError | TypeError | OSError | ImportError) or message == kind
    details = [] if is_clear else [kind]
    if line := users_line(error):
        details.append(line)
    return f"{message} ({', '.join(details)})" if details else message


def _has_nan(leaves: Iterable[Any]) -> bool:
    kinds = (x for x in leaves if isinstance(x, Tensor) and x.layout is torch.strided)
    return any((x.is_floating_point() or x.is_complex()) and bool(x.isnan().any()) for x in kinds)
