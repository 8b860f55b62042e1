"""Configuration of a race: builds the plan from the user's arguments."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gradprix.rules import Axis, choice
from gradprix.tasks import Task, find
from gradprix.tasks.loop import Loop, Problem, loop, name_of, trains
from gradprix.tasks.schedules import SCHEDULES
from gradprix.tasks.task import TaskError, first_line

from .entry import Entry
from .entry_registry import entries, resolve_entries, with_tuning
from .plan import SEEDS, TRIALS, Plan


def make_plan(
    task: Any,
    optimizers: str | Iterable[str | Entry] | None = None,
    *,
    bracket: str = "rules",
    tune: str | Sequence[str] | None = None,
    trials: int | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    schedule: str | None = None,
    margin: float | None = None,
    direction: str | None = None,
    baseline: str | None = None,
    preset: str | None = None,
    data: str | Path | None = None,
    seed: int = 0,
    compile: bool = False,  # noqa: A002  # as torch calls it
    device: str | None = None,
) -> Plan:
    """Return the plan of a race without running it. The arguments are those of `race`."""
    if isinstance(task, str):
        task = find(task, preset, data)
    elif preset is not None or data is not None:
        raise ValueError("preset and data are for built-in tasks, given by their names.")
    problem = as_problem(task, direction, margin)
    problem = problem.change(epochs=epochs, batch_size=batch_size, schedule=schedule)
    default = problem.entries if bracket == "rules" else ()
    chosen = entries((default or None) if optimizers is None else optimizers, bracket, baseline)
    if baseline is not None and ":" in baseline:
        baseline = resolve_entries(baseline)[0].name
    if tune is not None:
        names = [name.strip() for name in tune.split(",")] if isinstance(tune, str) else list(tune)
        chosen = with_tuning(chosen, names, training_axes(problem))
    trials = (problem.trials or TRIALS) if trials is None else trials
    seeds = (problem.seeds or SEEDS) if seeds is None else seeds
    device = "auto" if device is None else device
    return Plan(problem, tuple(chosen), trials, seeds, seed, compile, baseline=baseline, device=device)


def as_problem(given: Any, direction: str | None, margin: float | None) -> Problem:
    """Convert the user's object to a task or a training loop.

    Args:
        given: a task or loop, a function that returns a task, or a training function `train(make_optimizer, seed)`.
        direction: `"max"` or `"min"`, the better direction of a training loop's scores.
        margin: the smallest difference that matters; the problem's own when None.

    Raises:
        TypeError: for anything else.
    """
    problem = given
    if callable(problem) and not isinstance(problem, Task | Loop):
        if trains(problem):
            if direction is None:
                raise ValueError(
                    f"{name_of(problem)} is a training loop: say whether more of what it yields is better, "
                    'direction="max" (--direction max), or less, "min".'
                )
            return loop(problem, direction, margin=margin)
        try:
            problem = problem()
        except Exception as error:
            raise TaskError(f"{name_of(problem)}() fails: {type(error).__name__}: {first_line(error)}.") from error
    if not isinstance(problem, Task | Loop):
        raise TypeError(
            f"{given!r} is a {type(problem).__name__}: give a gp.Task, a function that returns one, or a training loop "
            "train(make_optimizer, seed)."
        )
    if direction is not None:
        raise ValueError("direction is for training loops: a task's metric says itself which way is better.")
    if margin is not None:
        problem = problem.change(metric=replace(problem.metric, margin=margin, relative=False))
    return problem


def training_axes(problem: Problem) -> dict[str, Axis]:
    """Return the search ranges of batch size and schedule."""
    if isinstance(problem, Loop):
        return {}
    sizes = sorted({max(1, int(problem.batch_size * factor)) for factor in (0.25, 0.5, 1, 2, 4)})
    return {"batch_size": choice(*sizes), "schedule": choice(*SCHEDULES)}
