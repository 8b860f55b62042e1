"""Whether a task can be raced, and in what form: found out in a moment, before the race."""

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from gradprix.tasks import Task
from gradprix.tasks._loop import Loop, home
from gradprix.tasks._task import TaskError, first_line

from ._anyone import Anyone
from ._lane import BATCHES_AT_ONCE, Lane
from ._loop import check_loop
from ._network import Form, quiet
from ._noise import Drawing
from ._plan import Plan
from ._sound import sound
from ._trial import Trial

EXAMPLES = 64
WIDTH = 8
"""Networks in a trial stack: enough that stacking has something to gain."""
WIDTHS = (2, 7)
"""Of stacks in which every network must come out the same: some odd ones, for loops have ends."""
APART = 1.25
"""How many times as long as one at a time a stack must take before it is given up: far enough from 1 that a noisy
machine does not decide."""
UNSTACKED = {
    "data-dependent control flow": "its course depends on values in the data, so that networks cannot go together",
    ".item()": "it reads numbers out of tensors (.item(), float()), so that networks cannot go together",
    "in-place operation": "it changes a tensor in place that all networks share",
    "Batching rule not implemented": "it has an operation that torch cannot stack",
}
"""What torch's messages mean, for a user."""


def check(plan: Plan) -> Form:
    """Train a few networks of the task for a step, stacked and one at a time, and score them on a few examples.

    Returns:
        How the race's networks are trained. One at a time where a stack of them does not work, is wrong, or is slower.

    Raises:
        TaskError: when the model, the loss, the metric or one of the optimizers does not work.
    """
    if isinstance(plan.task, Loop):
        return check_loop(plan, plan.task)
    task = home(plan.task)
    entry = next((entry for entry in plan.entries if not isinstance(entry.rule, Anyone)), plan.entries[0])
    trials = [plan.careful_trial(entry, row % 2) for row in range(WIDTH)]
    apart = Form(stacked=False, why="")
    with quiet():
        sound(task)
        losses, gradients, _, seconds = _try(plan, partial(_probe, task, trials, apart))
        try:
            form = Form(compiled=plan.compiled)
            stacked_losses, stacked_gradients, _, stacked_seconds = _probe(task, trials, form)
        except Exception as error:
            form = Form(stacked=False, why=_meaning(error))
        else:
            if not (_close([losses], [stacked_losses]) and _close(gradients, stacked_gradients)):
                form = Form(stacked=False, why="a stack of it gives other gradients")
            elif stacked_seconds > APART * seconds:
                form = Form(stacked=False, why=f"a stack of it takes {stacked_seconds / seconds:.1f} times as long")
            elif not all(_same_in_every_row(task, trial, width) for trial in _of_each_batch(plan) for width in WIDTHS):
                form = Form(stacked=False, why="where in a stack a network is would change its last digits")
        for entry in plan.entries:
            if isinstance(entry.rule, Anyone):
                own = [plan.careful_trial(entry, seed) for seed in range(2)]
                _try(plan, partial(_probe, task, own, form), f"optimizer {entry.name!r} on ")
    return form


def _try(plan: Plan, probe: Callable[[], Any], what: str = "") -> Any:
    try:
        return probe()
    except Exception as error:
        raise TaskError(f"{what}task {plan.task.name!r} cannot be raced: {first_line(error)}.") from error


def _probe(
    task: Task, trials: Sequence[Trial], form: Form
) -> tuple[torch.Tensor, list[torch.Tensor], list[float], float]:
    """Losses and gradients of a step, the metrics after another, and how long a step took."""
    lane = Lane(task, trials, form)
    index = lane.train[:, : min(EXAMPLES, trials[0].batch_size or EXAMPLES)]
    batch = lane.batch(index)
    with contextlib.nullcontext() if form.stacked else Drawing(torch.default_generator):  # as a stack draws
        losses, found = lane.network.gradients(lane.leaves, lane.rest, *batch)
    every = zip(found, lane.leaves.values(), strict=True)
    gradients = [(torch.zeros_like(x) if g is None else g)[: len(trials)] for g, x in every]
    lane.step(index, 1.0)
    _, metrics = lane.evaluate(lane.valid[:, :EXAMPLES])
    times = []
    for _ in range(3):
        started = time.perf_counter()
        lane.network.gradients(lane.leaves, lane.rest, *batch)
        times.append(time.perf_counter() - started)
    return losses[: len(trials)], gradients, metrics, min(times)


def _of_each_batch(plan: Plan) -> list[Trial]:
    """A trial of each batch size of the race."""
    first = {plan.batch_size(entry): entry for entry in reversed(plan.entries)}
    return [plan.careful_trial(entry, 0) for entry in first.values()]


def _same_in_every_row(task: Task, trial: Trial, width: int) -> bool:
    """Whether a stack of one network makes the same of each to the bit, in batches of every size that the race has."""
    lane = Lane(task, [trial] * width)
    batch, count = trial.batch_size or lane.train.shape[1], lane.train.shape[1]
    many, valid = batch * BATCHES_AT_ONCE, lane.valid.shape[1]
    results = []
    for size in dict.fromkeys((batch, count % batch or batch)):
        losses, gradients = lane.network.gradients(lane.leaves, lane.rest, *lane.batch(lane.train[:, :size]))
        results += [losses, *(g for g in gradients if g is not None)]
    for size in dict.fromkeys((min(many, valid), valid % many or many)):
        results += lane.network.outputs(lane.leaves, lane.rest, *lane.batch(lane.valid[:, :size]))[1:]
    results += lane.rest.values()
    return all(torch.equal(x[row], x[0]) or x[row].isnan().any() for x in results for row in range(1, width))


def _close(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> bool:
    """Whether two results differ by rounding alone, measured against the largest numbers of each network."""
    flat = [[x.double().reshape(len(x), -1) for x in results] for results in (first, second)]
    pairs = list(zip(*flat, strict=True))
    largest = torch.stack([a.abs().amax(1) for a, _ in pairs]).amax(0).clamp(min=1e-12)[:, None]
    # What should be zero, as the gradient of a bias before a norm, is rounding alone, whatever its own size.
    return all(bool(((a - b).abs() <= 1e-2 * a.abs().amax(1, True) + 1e-3 * largest).all()) for a, b in pairs)


def _meaning(error: Exception) -> str:
    known = (meaning for words, meaning in UNSTACKED.items() if words in str(error))
    return next(known, first_line(error))
