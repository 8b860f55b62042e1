"""Training step of one model as a plain PyTorch loop performs it, with the options of a task."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradprix.tasks import Task
from gradprix.tasks.model_with_loss import trained_modules
from gradprix.tasks.parameter_groups import parameter_groups
from gradprix.tasks.schedules import count_steps
from gradprix.tasks.task import called_with

from .closures import Closure
from .loop_runner import changed, maker
from .optimizer_factories import takes_model
from .param_groups import build_optimizer
from .torch_optimizer_adapter import constructor_arguments, needs_closure, switch_mode
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


def compute_sharpness_aware_gradients(
    task: Task, model: nn.Module, batches: Sequence[tuple[float, Any, Any]], rho: float, clip_norm: float | None = None
) -> Tensor:
    """Compute the gradients of a batch at the worst weights nearby, as in SAM, and return the loss at the weights.

    Args:
        task: the task.
        model: a model that `task.build` has returned; the gradients are in its parameters.
        batches: the micro-batches, as `read_micro_batches` returns them.
        rho: radius of the neighbourhood.
        clip_norm: maximum norm of the gradient; None does not clip.
    """
    loss = compute_plain_gradients(task, model, batches)
    used = [(x, x.grad) for x in model.parameters() if x.grad is not None]
    norm = nn.utils.get_total_norm([g for _, g in used])
    buffers = {name: x.clone() for name, x in model.named_buffers()}
    former = [x.detach().clone() for x, _ in used]
    with torch.no_grad():
        for x, g in used:
            x.add_(g, alpha=float(rho / norm) if norm > 0 else 0.0)
    compute_plain_gradients(task, model, batches, clip_norm)
    with torch.no_grad():
        for (x, _), value in zip(used, former, strict=True):
            x.copy_(value)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return loss


def make_plain_optimizer(task: Task, model: nn.Module, trial: Trial) -> torch.optim.Optimizer:
    """Return the optimizer of a trial for a model, with the task's parameter groups."""
    parameters = {name: x for name, x in model.named_parameters() if x.requires_grad}
    groups: list[Any] = list(parameters.values())
    if task.groups is not None:
        groups = [
            {"params": [parameters[name] for name in group.names], **group.settings}
            for group in parameter_groups(task.groups, model)
        ]
    steps = count_steps(len(task.loaded.split(trial.seed).train), trial.batch_size, trial.epochs)
    make, values = maker(trial), constructor_arguments(trial.rule, changed(trial))
    given = trained_modules(model) if takes_model(make) else groups
    optimizer = build_optimizer(make, given, values, total_steps=steps)
    switch_mode(optimizer, "train")
    return optimizer


def take_plain_step(
    task: Task,
    model: nn.Module,
    batches: Sequence[tuple[float, Any, Any]],
    optimizer: torch.optim.Optimizer,
    trial: Trial,
) -> Tensor:
    """Perform a training step of a trial, without its learning-rate schedule, and return the loss before the step.

    Args:
        task: the task.
        model: a model that `task.build` has returned.
        batches: the micro-batches, as `read_micro_batches` returns them.
        optimizer: the optimizer that `make_plain_optimizer` has returned.
        trial: the trial.
    """

    def compute() -> Tensor:
        return compute_plain_gradients(task, model, batches, trial.clip_norm)

    if trial.sam_rho is not None:
        loss = compute_sharpness_aware_gradients(task, model, batches, trial.sam_rho, trial.clip_norm)
    else:
        loss = compute()
    if needs_closure(trial.rule):
        params = [x for group in optimizer.param_groups for x in group["params"]]
        closure = Closure(params, loss, lambda: (compute(), [x.grad for x in params]))
        optimizer.step(closure)  # type: ignore[arg-type]  # returns a tensor
    else:
        optimizer.step()
    return loss
