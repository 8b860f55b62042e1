"""Preflight of custom training loops: run a few epochs, and reject loops whose race would be meaningless."""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from gradprix.tasks.loop import Loop
from gradprix.tasks.task import TaskError
from gradprix.training.execution_mode import ExecutionMode, Rejection, RejectionCause
from gradprix.training.loop_runner import Stopped, each_report, finite_numbers, run_loop

from .entry import Entry
from .overrides import GroupHistory, find_overridden
from .plan import Plan

MAX_EPOCH_SECONDS = 20.0
"""Seconds after which a run is stopped within an epoch. Only the steps up to then are compared."""
MIN_SECONDS = 2.0
"""Seconds after which no further epoch is started. More than one epoch is useful, because a loop may override the
learning rate only in later epochs."""
MIN_STEPS = 2
"""Minimum number of steps of a run, whatever their duration, so that there is something to compare."""


def check_loop(plan: Plan, loop: Loop) -> ExecutionMode:
    """Run a custom training loop for some seconds, with two seeds and two values of every tuned hyperparameter.

    Each run takes at least one epoch, unless an epoch takes longer than `MAX_EPOCH_SECONDS`.

    Returns:
        The execution mode of the race: one model at a time.

    Raises:
        TaskError: if the loop fails, yields anything but numbers, ignores the seed, does not use the optimizer it is
            given, or overrides a tuned hyperparameter.
    """
    unchecked = {name for entry in plan.entries for name in entry.space}
    for entry in plan.entries:
        if not unchecked & entry.space.keys():
            continue
        point, other = _two_points(entry)
        first = _probe(plan, loop, entry, point, 0)
        second = _probe(plan, loop, entry, other, 1, first)
        differ = {name: (value, other[name]) for name, value in point.items() if value != other[name]}
        _refuse_overrides(loop, first, second, differ)
        if first.history.initial == second.history.initial:
            second = _probe(plan, loop, entry, point, 1, first)
            if first.points == second.points and (first.stopped is None or first.weights == second.weights):
                raise TaskError(
                    f"{loop.name} gives identical results for two seeds, so that more seeds would add no information. "
                    "The race seeds torch, NumPy and Python: remove any other seeding from the loop."
                )
        if "lr" in point and not first.history.stepped and first.weights != first.history.initial:
            second = _probe(plan, loop, entry, other, 0, first)
            if (first.points, first.weights) == (second.points, second.weights):
                raise TaskError(
                    f"{loop.name} reaches the same weights and scores with lr = {point['lr']:g} and lr = "
                    f"{other['lr']:g}: it does not step the optimizer that make_optimizer returns. Step that one."
                )
        if not first.diverged:
            unchecked -= entry.space.keys()
    return ExecutionMode(stacked=False, stack_rejection=Rejection(RejectionCause.TRAINING_LOOP))


@dataclass(frozen=True)
class _Probe:
    """Short run of a training loop.

    Args:
        points: mappings that the loop yielded, one for each epoch.
        history: hyperparameters of the loop's optimizers at each step.
        weights: hashes of the trained weights.
        diverged: True if yielded numbers or weights are not finite.
        stopped: number of steps after which the run was stopped; None if it was not stopped within an epoch.
    """

    points: list[Mapping[str, Any]]
    history: GroupHistory
    weights: list[str]
    diverged: bool
    stopped: int | None


def _probe(
    plan: Plan, loop: Loop, entry: Entry, point: Mapping[str, Any], seed: int, first: _Probe | None = None
) -> _Probe:
    """Run a training loop for a short time.

    Args:
        plan: plan of the race.
        loop: training loop.
        entry: entry whose optimizer is used.
        point: values of the tuned hyperparameters.
        seed: index of the tuning seed.
        first: earlier run. If it is given, this run takes the same number of epochs or steps instead of some seconds.
    """
    started, stopped = time.perf_counter(), None
    after = None if first is None else first.stopped
    most = None if first is None or after is not None else max(1, len(first.points))

    def stop(steps: int) -> bool:
        nonlocal stopped
        timed_out = after is None and steps >= MIN_STEPS and time.perf_counter() - started > MAX_EPOCH_SECONDS
        if steps == after or timed_out:
            stopped = steps
        return stopped is not None

    points: list[Mapping[str, Any]] = []
    history = GroupHistory(list(point))
    until = started + MIN_SECONDS if first is None else math.inf
    recorded = loop.change(train=partial(_train_recorded, loop, points, history, until))
    try:
        diverged = run_loop(recorded, plan.tuning_trial(entry, point, seed), most, stop).diverged is not None
    except Stopped:
        diverged = False
    return _Probe(points, history, history.current, diverged, stopped)


def _train_recorded(
    loop: Loop, points: list[Mapping[str, Any]], history: GroupHistory, until: float, make_optimizer: Any, seed: int
) -> Iterable[Mapping[str, float]]:
    """Run a training loop, and record the steps of its optimizers and the mappings that it yields.

    Args:
        loop: training loop.
        points: list to which the yielded mappings are appended.
        history: history in which the hyperparameters are recorded.
        until: time of `time.perf_counter` after which no further epoch is started.
        make_optimizer: function that constructs the optimizer.
        seed: seed of the run.
    """
    for point in each_report(loop, loop.train(history.watch(make_optimizer), seed)):
        points.append(finite_numbers(loop, point))
        yield point
        if time.perf_counter() > until:
            return


def _two_points(entry: Entry) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two points of an entry's search space with small learning rates that differ in every hyperparameter."""
    first = {name: axis.from_unit(0.0 if name == "lr" else 0.5) for name, axis in entry.space.items()}
    second = {
        name: next((value for value in map(axis.from_unit, (0.25, 0.5, 0.0, 1.0)) if value != first[name]), first[name])
        for name, axis in entry.space.items()
    }
    return first, second


def _refuse_overrides(loop: Loop, first: _Probe, second: _Probe, trials: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise an error if a training loop overrides tuned hyperparameters.

    Args:
        loop: training loop.
        first: a run of the loop.
        second: a run with other values of the tuned hyperparameters.
        trials: values of each tuned hyperparameter in both runs.

    Raises:
        TaskError: if any of them is overridden.
    """
    overridden = find_overridden(first.history, second.history, trials)
    if "lr" in overridden:
        values = ", ".join(f"{value:.3g}" for value in overridden["lr"][:3])
        what = "OneCycleLR" if "max_lr" in first.history.keys else "a scheduler such as CyclicLR, or the loop"
        raise TaskError(
            f"{loop.name} overrides the learning rate of its optimizer ({values} ... by {what}), so that the tuned "
            "learning rate has no effect. Derive it from the tuned one: lr = optimizer.param_groups[0]['lr'] right "
            "after make_optimizer, then OneCycleLR(optimizer, max_lr=lr, ...), or a multiplicative schedule such as "
            "LambdaLR."
        )
    if overridden:
        names = ", ".join(sorted(overridden))
        raise TaskError(
            f"{loop.name} overrides {names} of its optimizer, so that the tuned values have no effect. Do not tune "
            f"{names}, or keep the values that make_optimizer set: OneCycleLR and CyclicLR change momentum and beta1 "
            "unless cycle_momentum=False."
        )
