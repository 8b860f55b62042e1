"""Training step of one model as a plain PyTorch loop performs it, with the options of a task."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradprix.tasks import Task
from gradprix.tasks.parameter_groups import parameter_groups
from gradprix.tasks.task import called_with

from .loop_runner import changed, maker
from .param_groups import build_optimizer
from .torch_optimizer_adapter import constructor_arguments, switch_mode
from .trial import Trial


def read_micro_batches(task: Task, index: Tensor, read: Callable[[Tensor], Any]) -> list[tuple[float, Any, Any]]:
    """Return the micro-batches of a batch, each as its share of the examples, its inputs and its targets.

    Args:
        task: the task.
        index: indices of the batch, `[batch]`.
        read: returns the inputs and targets of examples, given their indices.
    """
    parts = torch.split(index, task.micro_batch(len(index)))
    return [(len(part) / len(index), *read(part)) for part in parts]


def compute_plain_gradients(
    task: Task, model: nn.Module, batches: Sequence[tuple[float, Any, Any]], clip_norm: float | None = None
) -> Tensor:
    """Compute the gradients of a batch, clip them, and return the loss.

    Args:
        task: the task.
        model: a model that `task.build` has returned; the gradients are in its parameters.
        batches: the micro-batches, as `read_micro_batches` returns them.
        clip_norm: maximum norm of the gradient; None does not clip.
    """
    model.zero_grad()
    total: Tensor | None = None
    for share, inputs, targets in batches:
        args, kwargs = called_with(inputs)
        loss = task.loss_of(model)(model(*args, **kwargs), targets)
        loss = loss if share == 1.0 else loss * share
        loss.backward()  # type: ignore[no-untyped-call]
        total = loss.detach() if total is None else total + loss.detach()
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    assert total is not None
    return total


def make_plain_optimizer(task: Task, model: nn.Module, trial: Trial) -> torch.optim.Optimizer:
    """Return the optimizer of a trial for a model, with the task's parameter groups."""
    parameters = {name: x for name, x in model.named_parameters() if x.requires_grad}
    groups: list[Any] = list(parameters.values())
    if task.groups is not None:
        groups = [
            {"params": [parameters[name] for name in group.names], **group.settings}
            for group in parameter_groups(task.groups, model)
        ]
    optimizer = build_optimizer(maker(trial), groups, constructor_arguments(trial.rule, changed(trial)))
    switch_mode(optimizer, "train")
    return optimizer
