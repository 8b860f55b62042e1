"""Errors of a task's own code while its networks train: told from divergence, and put in words."""

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

from .trial import Trial


class NanWatch(TorchDispatchMode):
    """Notes whether an operation computes a NaN while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: bool = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as in `Recorder`

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and look at what it computes."""
        found = function(*args, **(kwargs or {}))
        self.seen = self.seen or _has_nan(tree_leaves(found))
        return found


def failed_on_nan(weights: Iterable[Tensor], run: Callable[[], Any]) -> bool:
    """Whether code that fails does so on numbers of a network that has diverged.

    Such are weights that are not finite, or a NaN that the code computes before it fails.

    Args:
        weights: of the network.
        run: fails again.
    """
    if any(x.is_floating_point() and not bool(x.isfinite().all()) for x in weights):
        return True
    watch = NanWatch()
    with suppress(Exception), watch:
        run()
    return watch.seen


def has_nan(output: Any) -> bool:
    """Whether a model's output has a NaN."""
    return _has_nan(tree_leaves(output))


def task_error(task: Task, what: str, trials: Sequence[Trial], error: Exception) -> TaskError:
    """Return what to raise when a task's code fails: with which optimizers, why and where.

    Args:
        task: the problem.
        what: of its parts, as in "its metric".
        trials: those that it was run for.
        error: what it raised.
    """
    if isinstance(error, TaskError):
        return error
    names = " or ".join(dict.fromkeys(trial.entry_name for trial in trials))
    whose = f"with {names}"
    if len({trial.key for trial in trials}) == 1 and "lr" in trials[0].values:
        whose += f" at learning rate {trials[0].values['lr']:g}, seed {trials[0].seed}"
    made = TaskError(
        f"task {task.name!r} cannot be raced: {what} fails {whose}: {type(error).__name__}: {first_line(error)}"
        f"{f' ({line})' if (line := users_line(error)) else ''}."
    )
    made.__cause__ = error
    return made


def describe_error(error: Exception) -> str:
    """Return what an error says, its type where the message alone would be a riddle, and the user's line."""
    said, kind = first_line(error), type(error).__name__
    spoken = isinstance(error, ValueError | RuntimeError | TypeError | OSError | ImportError) or said == kind
    about = [] if spoken else [kind]
    if line := users_line(error):
        about.append(line)
    return f"{said} ({', '.join(about)})" if about else said


def _has_nan(leaves: Iterable[Any]) -> bool:
    kinds = (x for x in leaves if isinstance(x, Tensor) and x.layout is torch.strided)
    return any((x.is_floating_point() or x.is_complex()) and bool(x.isnan().any()) for x in kinds)
