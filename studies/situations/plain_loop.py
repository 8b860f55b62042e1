"""Training of a task's model in a plain PyTorch loop, with the initial weights and the batches of a trial."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

import gradprix as gp
from gradprix.tasks import schedule
from gradprix.tasks.rng import RngState, init_model, stream
from gradprix.tasks.task import called_with
from gradprix.training.trial import Trial


def train_plain(task: gp.Task, trial: Trial) -> Iterator[float]:
    """Train one model with `torch.optim.AdamW` in a plain loop.

    Args:
        task: the task, with its training options.
        trial: supplies learning rate, seed, batch size, number of epochs and schedule.

    Yields:
        The loss of each step.
    """
    data, size, epochs = task.loaded, trial.batch_size, int(trial.epochs)
    train = data.split(trial.seed).train
    model = init_model(task.model, trial.seed).train()
    loss = task.loss if not isinstance(task.loss, nn.Module) else init_model(lambda: task.loss, trial.seed)
    trained = nn.ModuleList([model, loss] if isinstance(loss, nn.Module) else [model])
    values = {"lr": trial.values["lr"], "weight_decay": trial.values["weight_decay"]}
    optimizer = torch.optim.AdamW(_groups(task, model, trained, values), **values)
    steps = epochs * math.ceil(len(train) / size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(trial.schedule, steps))
    order, noise, reading = (stream(trial.seed, purpose) for purpose in ("order", "noise", "examples"))
    noise_state, reading_state = RngState(noise), RngState(reading)
    dtype = task.autocast
    for _ in range(epochs):
        for index in _shuffle(data, train, order).split(size):
            optimizer.zero_grad()
            total = 0.0
            for part in index.tensor_split(task.accumulate):
                examples = data.take(part[None], [reading_state])
                inputs, targets = tree_map(lambda x: x[0], examples)
                with noise_state, torch.autocast("cpu", dtype=dtype) if dtype is not None else nullcontext():
                    args, kwargs = called_with(inputs)
                    value = loss(model(*args, **kwargs), targets) * (len(part) / len(index))
                value.backward()
                total += float(value.detach())
            if task.clip_norm is not None:
                nn.utils.clip_grad_norm_(trained.parameters(), task.clip_norm)
            optimizer.step()
            scheduler.step()
            yield total


def _shuffle(data: gp.Data, train: Tensor, generator: torch.Generator) -> Tensor:
    """Return the training examples of an epoch: in random order, or drawn by their weights as a sampler does."""
    if data.weights is None:
        return train[torch.randperm(len(train), generator=generator)]
    return train[torch.multinomial(data.weights[train], len(train), replacement=True, generator=generator)]


def _groups(task: gp.Task, model: nn.Module, trained: nn.Module, values: dict[str, float]) -> list[dict[str, Any]]:
    """Return the parameter groups of the optimizer, with the factors of the task's groups multiplied out."""
    chosen = task.groups
    if chosen is None:
        return [{"params": [x for x in trained.parameters() if x.requires_grad]}]
    if chosen == "no_decay_norms":
        kinds: tuple[list[Tensor], list[Tensor]] = ([], [])
        for x in model.parameters():
            kinds[x.dim() < 2].append(x)
        return [{"params": kinds[0]}, {"params": kinds[1], "weight_decay": 0.0}]
    groups = chosen(model)
    return [{"params": list(group["params"]), "lr": values["lr"] * group.get("lr_factor", 1)} for group in groups]
