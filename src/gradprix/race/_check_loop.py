"""Runs a training loop for an epoch before its race, and refuses one whose race would mean nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from gradprix.tasks._loop import Loop
from gradprix.tasks._task import TaskError

from ._entry import Entry
from ._loop import _each, _numbers, run_loop
from ._overrides import GroupHistory, find_overridden
from ._plan import Plan
from .lanes._network import Form

WHY = "it is a training loop of your own"


def check_loop(plan: Plan, loop: Loop) -> Form:
    """Run a loop for an epoch under two seeds and at two values of every hyperparameter that is tuned.

    Raises:
        TaskError: when it fails, yields something else than numbers, does the same under both seeds, or overrides
            what is tuned.
    """
    unchecked = {name for entry in plan.entries for name in entry.space}
    for entry in plan.entries:
        if not unchecked & entry.space.keys():
            continue
        point, other = _two_points(entry)
        first = _probe(plan, loop, entry, point, 0)
        second = _probe(plan, loop, entry, other, 1)
        _refuse_overrides(loop, first, second, {name: (point[name], other[name]) for name in point})
        if first.history.initial == second.history.initial:
            second = _probe(plan, loop, entry, point, 1)
            if first.points == second.points:
                raise TaskError(
                    f"{loop.name} does the same under two seeds, so that nothing could be told from more of them. "
                    "Torch's, NumPy's and Python's random numbers begin at the seed: take away what sets another one "
                    "in it."
                )
        if not first.history.stepped and first.weights != first.history.initial:
            second = _probe(plan, loop, entry, other, 0)
            if (first.points, first.weights) == (second.points, second.weights):
                raise TaskError(
                    f"{loop.name} trains to the same weights and scores with lr = {point['lr']:g} and with lr = "
                    f"{other['lr']:g}: it does not step the optimizer that make_optimizer returns. Train with that one."
                )
        if not first.diverged:
            unchecked -= entry.space.keys()
    return Form(stacked=False, why=WHY)


@dataclass(frozen=True)
class _Probe:
    """One epoch of a loop: what it yielded, its optimizers, and digests of the weights that they trained."""

    points: list[Mapping[str, Any]]
    history: GroupHistory
    weights: list[str]
    diverged: bool


def _probe(plan: Plan, loop: Loop, entry: Entry, point: Mapping[str, Any], seed: int) -> _Probe:
    points: list[Mapping[str, Any]] = []
    history = GroupHistory(list(point))
    watched = loop.change(train=partial(_watched, loop, points, history))
    outcome = run_loop(watched, plan.tuning_trial(entry, point, seed), most=1)
    return _Probe(points, history, history.current, outcome.diverged is not None)


def _watched(
    loop: Loop, points: list[Mapping[str, Any]], history: GroupHistory, make_optimizer: Any, seed: int
) -> Iterable[Mapping[str, float]]:
    """A loop's own course, noting its optimizers and what it yields."""
    for point in _each(loop, loop.train(history.watch(make_optimizer), seed)):
        points.append(_numbers(loop, point))
        yield point


def _two_points(entry: Entry) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two points of an entry's space that differ in every hyperparameter, at small learning rates."""
    first = {name: axis.at(0.0 if name == "lr" else 0.5) for name, axis in entry.space.items()}
    second = {
        name: next(value for value in map(axis.at, (0.25, 0.5, 0.0, 1.0)) if value != first[name])
        for name, axis in entry.space.items()
    }
    return first, second


def _refuse_overrides(loop: Loop, first: _Probe, second: _Probe, trials: Mapping[str, tuple[Any, Any]]) -> None:
    overridden = find_overridden(first.history, second.history, trials)
    if "lr" in overridden:
        values = ", ".join(f"{value:.3g}" for value in overridden["lr"][:3])
        what = "OneCycleLR" if "max_lr" in first.history.keys else "a scheduler such as CyclicLR, or its own code"
        raise TaskError(
            f"{loop.name} sets the learning rate of its optimizer itself ({values} ... by {what}), so that the "
            f"learning rates of the race have no effect. Derive it from the rate under trial: "
            "rate = optimizer.param_groups[0]['lr'] right after make_optimizer, then OneCycleLR(optimizer, "
            "max_lr=rate, ...), or a schedule that multiplies, such as LambdaLR."
        )
    if overridden:
        names = ", ".join(sorted(overridden))
        raise TaskError(
            f"{loop.name} sets {names} of its optimizer itself, so that the values of the race have no effect. Leave "
            f"{names} out of what is tuned, or keep what make_optimizer set: OneCycleLR and CyclicLR change momentum "
            "and beta1 unless cycle_momentum=False."
        )
