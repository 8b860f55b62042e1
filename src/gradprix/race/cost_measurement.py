"""Measurement of the training cost of a race on this machine, or on a cluster."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from gradprix.executors.executor import Engine
from gradprix.tasks import Task
from gradprix.training.autotune import StackLayout, seconds_of_one
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.loop_runner import Stopped, run_loop
from gradprix.training.model_stack import quiet
from gradprix.training.optimizers import StackedOptimizers
from gradprix.training.trainer import BATCHES_AT_ONCE, NARROWEST, Trainer
from gradprix.training.trial import Trial
from gradprix.training.trial import form as form_of
from gradprix.utils.devices import wait

from .cost import Cost, available_seconds
from .plan import Plan
from .preflight import preflight
from .progress_display import Watch
from .reduced_plans import reduced_plans

LONG, SLOW = 0.5, 5.0
"""Seconds of evaluation sufficient to extrapolate from; duration of a first call, in seconds, above which it is not
repeated."""
ONE_RUN = 60.0
"""Duration of a training loop's run, in seconds, above which a plan states a lower bound of the race's time."""


def measure_cost(plan: Plan, engine: Engine, watch: Watch = lambda *_: None, minutes: float | None = None) -> Cost:
    """Measure the training cost of a plan: a few steps of all its entries, with all processes busy.

    Args:
        plan: the race.
        engine: the executor.
        watch: progress callback.
        minutes: time budget of the race; a training loop that is too slow for it is not run to its end.

    Raises:
        TaskError: if the task fails.
    """
    started = time.perf_counter()
    form = preflight(plan, engine, watch)
    watch(f"Measuring how long {plan.task.name!r} takes", 0.0, 0)
    trials = [plan.careful_trial(entry, seed) for entry in plan.entries for seed in range(2)]
    if not isinstance(plan.task, Task):
        patience = ONE_RUN if minutes is None else _longest_run(plan, minutes, engine.workers)
        seconds, is_finished = engine.ask(time_loop_run, plan.task, trials[0], patience)
        cost = Cost(0.0, 0.0, 0.0, seconds, StackLayout(1, engine.workers), at_least=not is_finished)
    else:
        cost = (_measure_stacks if form.stacked else _measure_sequential)(plan.task, trials, form, engine)
    return replace(cost, start=time.perf_counter() - started)


def _longest_run(plan: Plan, minutes: float, workers: int) -> float:
    """Return the duration of a run in seconds above which not even the smallest race fits the budget."""
    runs = min(candidate.runs for candidate in reduced_plans(plan))
    return available_seconds(minutes) / math.ceil(runs / workers)


def _measure_sequential(task: Task, trials: list[Trial], form: ExecutionMode, engine: Engine) -> Cost:
    shape = engine.shape(task, trials, form)
    each = engine.everywhere(shape.processes, measure_sequential_costs, task, trials, form)
    model, step, evaluation = (max(costs) for costs in zip(*each, strict=True))
    return Cost(0.0, 0.0, step, evaluation, shape, model)


def _measure_stacks(task: Task, trials: list[Trial], form: ExecutionMode, engine: Engine) -> Cost:
    """Measure stacks of two widths, whose difference separates the cost of a stack from that of its models."""
    shape = engine.shape(task, trials, form)
    wide = shape.width
    narrow = 16 if wide > 16 else NARROWEST

    def slowest(measure: Callable[..., float], width: int) -> float:
        return float(max(engine.everywhere(shape.processes, measure, task, trials, form, width)))

    in_narrow, in_wide = slowest(seconds_of_one, narrow), slowest(seconds_of_one, wide)
    step = max(0.0, (in_narrow - in_wide) / (1 / narrow - 1 / wide))
    return Cost(0.0, step, in_wide - step / wide, slowest(seconds_to_evaluate, narrow), shape)


def time_loop_run(loop: Any, trial: Trial, patience: float) -> tuple[float, bool]:
    """Return the seconds of a user-supplied loop's run, and whether it finished within `patience` seconds."""
    started = time.perf_counter()
    whole = True
    try:
        run_loop(loop, trial, stop=lambda _: time.perf_counter() - started > patience)
    except Stopped:
        whole = False
    return time.perf_counter() - started, whole


def measure_sequential_costs(task: Task, trials: list[Trial], form: ExecutionMode) -> tuple[float, float, float]:
    """Return the seconds of model initialization, of a training step, and of an evaluation on the validation set.

    The optimizer step is averaged over the trials' optimizers, which share the model.
    """
    rules = {trial.rule.name: trial for trial in trials}
    with quiet(form.device):
        started = time.perf_counter()
        trainer = Trainer(task, [trials[0]], form)
        wait(trainer.device)
        start = time.perf_counter() - started
        index = trainer.train[:, : trials[0].batch_size or trainer.train.shape[1]]
        gradients = [torch.zeros_like(x) for x in trainer.leaves.values()]

        def step() -> None:
            computed = trainer.network.gradients(trainer.leaves, trainer.rest, *trainer.batch(index))[1]
            for into, g in zip(gradients, computed, strict=True):
                if g is not None:
                    into.copy_(g)

        backward = _seconds(step, trainer)
        updates = []
        for trial in rules.values():
            optimizers = StackedOptimizers([trial], list(trainer.leaves.values()))
            with torch.no_grad():
                updates.append(_seconds(partial(optimizers.step, gradients, 1.0), trainer))
        return start, backward + sum(updates) / len(updates), _seconds_to_evaluate(trainer)


def _seconds(run: Callable[[], object], trainer: Trainer) -> float:
    """Time a call: the second one, because the first also allocates memory, unless the first took long."""
    for _ in range(2):
        started = time.perf_counter()
        run()
        wait(trainer.device)
        if (elapsed := time.perf_counter() - started) > SLOW:
            break
    return float(elapsed)


def _seconds_to_evaluate(trainer: Trainer) -> float:
    """Return the seconds of an evaluation on the validation set, extrapolated from a part of it if that takes long."""
    count = trainer.valid.shape[1]
    # A sequential model takes as long per example in a small batch; a stack runs the traced program of full batches.
    part = min(count, (trainer.budget.batch_size or count) * (BATCHES_AT_ONCE if trainer.how.stacked else 1))
    elapsed = _seconds(lambda: trainer.evaluate(trainer.valid[:, :part]), trainer)
    more = part * min(count // part, int(LONG / max(elapsed, 1e-6)))  # full parts run the same traced program
    if more > part:
        part, elapsed = more, _seconds(lambda: trainer.evaluate(trainer.valid[:, :more]), trainer)
    return float(elapsed * count / part)


def seconds_to_evaluate(task: Task, trials: list[Trial], form: ExecutionMode, width: int) -> float:
    """Return the seconds of an evaluation per model, in a stack of `width` models."""
    rows = sorted((trials[i % len(trials)] for i in range(width)), key=form_of)
    with quiet(form.device):
        return _seconds_to_evaluate(Trainer(task, rows, form)) / width
