"""Preflight test of the last batch of an epoch or of an evaluation, which may be smaller than the others."""

import math

import torch
from torch import nn
from torch.utils._pytree import tree_map

from gradprix.rules import Choice
from gradprix.tasks import Task
from gradprix.tasks.rng import RngState, init_model
from gradprix.tasks.schedules import examples_a_pass
from gradprix.tasks.task import called_with, first_line
from gradprix.training.evaluation import BATCH_FACTOR
from gradprix.training.gradient_mode import needs_gradients

from .plan import Plan


def batch_sizes(plan: Plan) -> list[int]:
    """Return all batch sizes that can occur in a race, including those that are tuned; 0 means full-batch training."""
    sizes: list[int] = []
    for entry in plan.entries:
        axis = entry.space.get("batch_size")
        sizes += map(int, axis.values) if isinstance(axis, Choice) else [plan.batch_size(entry)]
    return list(dict.fromkeys(sizes))


def check_last_batches(task: Task, plan: Plan) -> None:
    """Train and evaluate a model on last batches of every size that can occur in a race.

    Raises:
        TaskError: if the model or the loss fails on such a batch. The message has the batch size and a remedy.
    """
    split = task.loaded.split(0)
    trained = split.train[: examples_a_pass(len(split.train), task.epochs)]
    parts = {"train": trained, "valid": split.valid, "test": split.test}
    tested: set[tuple[bool, int]] = set()
    for size in batch_sizes(plan):
        for part, index in parts.items():
            batch = size or len(index)
            if part == "train" and task.accumulate > 1:
                _check_micro_batches(task, batch, index)
                continue
            whole = batch if part == "train" else task.micro_batch(batch) * BATCH_FACTOR
            last = len(index) % whole
            # Evaluation on a full batch was tested before. Larger batches need no further test, which may take long.
            if last == 0 or (part == "train", last) in tested or (part != "train" and last >= (size or math.inf)):
                continue
            tested.add((part == "train", last))
            try:
                _run(task, index[:last], part == "train")
            except Exception as error:
                where = "training" if part == "train" else "evaluation"
                raise task.refused(
                    f"with batches of {whole}, the last of {len(index)} examples has size {last}, and the model or "
                    f"the loss fails on it in {where}: {first_line(error)}. Choose another batch size, or remove "
                    f"{last} of the examples."
                    + (" Batch norm needs at least 2 examples." if last == 1 and part == "train" else "")
                ) from error


def _check_micro_batches(task: Task, batch: int, index: torch.Tensor) -> None:
    """Train a model on micro-batches of every size that occurs in batches of `batch` examples of `index`.

    Raises:
        TaskError: if the model or the loss fails on one of them.
    """
    batches = {min(batch, len(index)), len(index) % batch or batch}
    sizes = {rest for each in batches for rest in (task.micro_batch(each), each % task.micro_batch(each)) if rest}
    for size in sorted(sizes):
        try:
            _run(task, index[:size], True)
        except Exception as error:
            raise task.refused(
                f"with batches of {batch} in {task.accumulate} micro-batches, one of these has {size} examples, and "
                f"the model or the loss fails on it: {first_line(error)}. Choose another batch size or accumulate."
                + (" Batch norm needs at least 2 examples." if size == 1 else "")
            ) from error


def _run(task: Task, index: torch.Tensor, train: bool) -> None:
    """Compute the loss of a batch, in training mode with its gradient, or in evaluation mode.

    Raises:
        ValueError: if the loss is not a finite scalar.
    """
    inputs, targets = tree_map(lambda x: x[0], task.loaded.take(index[None]))
    args, kwargs = called_with(inputs)
    model: nn.Module = init_model(task.build, 0).train(train)
    with RngState(torch.Generator()), torch.set_grad_enabled(train or needs_gradients(task)):
        loss = task.loss_of(model)(model(*args, **kwargs), targets)
    if loss.dim() != 0:
        raise ValueError(f"the loss of a batch has shape {tuple(loss.shape)}, not that of a scalar")
    if train:
        loss.backward()  # type: ignore[no-untyped-call]
    if not loss.isfinite():
        raise ValueError(f"the loss is {loss.item()}")
