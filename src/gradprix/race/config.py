"""Configuration of a race, and the plan that results from it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradprix.rules import Axis, Log, choice
from gradprix.rules.modifiers import split_names
from gradprix.tasks import Task, find
from gradprix.tasks.loop import Loop, Problem, is_training_loop, loop_name, make_loop
from gradprix.tasks.schedules import SCHEDULES
from gradprix.tasks.task import TaskError, first_line

from .cost import available_seconds
from .entry import Entry
from .entry_registry import entries, resolve_entries, with_recommended_tuning, with_tuning
from .modified_entries import is_expression
from .plan import Locations, Plan
from .plan_limits import SEEDS, TRIALS, USUAL_CLIP_NORM, check_ranges

RECOMMENDED = "recommended"
"""Value of `tune` for the hyperparameters that each optimizer's users tune."""


@dataclass(frozen=True)
class RaceConfig:
    """Configuration of a race, from Python or the command line.

    The fields are the arguments of `gradprix.race`; see there. If a field is None, the value of the task is used, or
    the default if the task does not define one.

    Raises:
        ValueError: if a value is out of range, whatever the task.
    """

    task: Any
    optimizers: str | Iterable[str | Entry] | None = None
    bracket: str = "rules"
    tune: str | Sequence[str] | None = None
    trials: int | None = None
    seeds: int | None = None
    epochs: float | None = None
    batch_size: int | None = None
    schedule: str | None = None
    margin: float | None = None
    direction: str | None = None
    baseline: str | None = None
    preset: str | None = None
    data: str | Path | None = None
    seed: int = 0
    minutes: float | None = None
    compile: bool = False  # named after torch.compile
    device: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.task, str) and (self.preset is not None or self.data is not None):
            raise ValueError(
                "preset and data select a built-in task's size and files, so they need a built-in task, given by its "
                "name: leave them out, or give a name."
            )
        check_ranges(self.trials, self.seeds, self.seed, self.margin, self.device)
        if self.minutes is not None:
            available_seconds(self.minutes)


def make_plan(task: RaceConfig | Any, optimizers: str | Iterable[str | Entry] | None = None, **fields: Any) -> Plan:
    """Create the plan of a race without running it.

    A time budget (`minutes`) is ignored; `fit_to_budget` reduces a plan to a time budget.

    Args:
        task: complete configuration of the race, or only its task.
        optimizers: optimizers to race. Give them only with a task, not with a configuration.
        **fields: other fields of `RaceConfig`. Give them only with a task, not with a configuration.

    Raises:
        ValueError: if a name is unknown, or a value out of range.
        TypeError: if the task has an unsupported type.
        TaskError: if the function that returns the task fails.
    """
    config = task if isinstance(task, RaceConfig) else RaceConfig(task, optimizers, **fields)
    problem = find_problem(config)
    baseline = config.baseline
    if baseline is not None and (":" in baseline or is_expression(baseline)):
        baseline = resolve_entries(baseline)[0].name
    return Plan(
        problem,
        tuple(_choose_entries(config, problem)),
        trials=config.trials or problem.trials or TRIALS,
        seeds=config.seeds or problem.seeds or SEEDS,
        seed=config.seed,
        compiled=config.compile,
        baseline=baseline,
        device=config.device or "auto",
        locations=_find_locations(config),
    )


def _find_locations(config: RaceConfig) -> Locations:
    """Return the names by which a configuration gives its task and the user's optimizers."""
    given = config.optimizers
    names = split_names(given) if isinstance(given, str) else given if isinstance(given, list | tuple) else []
    own = [name for name in (*names, config.baseline) if isinstance(name, str) and ":" in name]
    optimizers = {entry.name: name for name in own for entry in resolve_entries(name)}
    return Locations(config.task if isinstance(config.task, str) else None, config.preset, optimizers)


def find_problem(config: RaceConfig) -> Problem:
    """Return the task or training loop of a configuration, with the epochs, batch size and schedule that it sets."""
    task = find(config.task, config.preset, config.data) if isinstance(config.task, str) else config.task
    problem = as_problem(task, config.direction, config.margin)
    return problem.change(epochs=config.epochs, batch_size=config.batch_size, schedule=config.schedule)


def _choose_entries(config: RaceConfig, problem: Problem) -> list[Entry]:
    """Return the entries that a configuration selects, with their search spaces."""
    optimizers = config.optimizers
    if optimizers is None and config.bracket == "rules":
        optimizers = problem.entries or None
    chosen = entries(optimizers, config.bracket, config.baseline, has_schedule(problem))
    return tune_entries(chosen, config, problem)


def has_schedule(problem: Problem) -> bool:
    """Return True if the learning rate of a problem follows a schedule. Training loops have their own steps."""
    return isinstance(problem, Task) and problem.schedule != "constant"


def tune_entries(chosen: list[Entry], config: RaceConfig, problem: Problem) -> list[Entry]:
    """Return copies of the entries that tune the hyperparameters which a configuration selects."""
    if config.tune is None:
        return chosen
    names = [name.strip() for name in config.tune.split(",")] if isinstance(config.tune, str) else list(config.tune)
    if RECOMMENDED in names and len(set(names)) > 1:
        raise ValueError(
            f"tune = {','.join(names)}: {RECOMMENDED} selects all hyperparameters itself. Give it alone, or name all "
            "hyperparameters."
        )
    if RECOMMENDED in names:
        trials = config.trials or problem.trials or TRIALS
        return with_recommended_tuning(chosen, trials)
    return with_tuning(chosen, names, training_axes(problem))


def as_problem(given: Any, direction: str | None, margin: float | None) -> Problem:
    """Convert an object that the user passes as a task to a `Task` or a `Loop`.

    Args:
        given: a `Task` or `Loop`, a function that returns a task, or a training function
            `train(make_optimizer, seed)`.
        direction: `"max"` if higher scores of a training loop are better, `"min"` if lower scores are better; None for
            tasks, whose metric defines the direction.
        margin: the smallest difference that matters; None keeps the margin of the task.

    Raises:
        TypeError: if the object has another type.
        ValueError: if the direction is missing for a training loop, or given for a task.
        TaskError: if the function that returns a task fails.
    """
    problem = given
    if callable(problem) and not isinstance(problem, Task | Loop):
        if is_training_loop(problem):
            if direction is None:
                raise ValueError(
                    f"{loop_name(problem)} is a training loop, whose scores have no known direction: give "
                    'direction="max" (--direction max) if higher scores are better, else "min".'
                )
            return make_loop(problem, direction, margin=margin)
        try:
            problem = problem()
        except Exception as error:
            raise TaskError(f"{loop_name(problem)}() fails: {type(error).__name__}: {first_line(error)}.") from error
    if not isinstance(problem, Task | Loop):
        raise TypeError(
            f"{given!r} is a {type(problem).__name__}: give a gp.Task, a function that returns one, or a training loop "
            "train(make_optimizer, seed)."
        )
    if direction is not None:
        raise ValueError(
            f"direction = {direction!r}: direction is for training loops, because the metric of a task has its own. "
            "Leave it out."
        )
    if margin is not None:
        problem = problem.change(metric=replace(problem.metric, margin=margin, relative=False))
    return problem


def training_axes(problem: Problem) -> dict[str, Axis]:
    """Return the search ranges of batch size, schedule and gradient clipping; empty for a training loop.

    A loop chooses these itself.
    """
    if isinstance(problem, Loop):
        return {}
    sizes = sorted({max(1, int(problem.batch_size * factor)) for factor in (0.25, 0.5, 1, 2, 4)})
    clip_norm = problem.clip_norm or USUAL_CLIP_NORM
    return {
        "batch_size": choice(*sizes),
        "schedule": choice(*SCHEDULES),
        "clip_norm": Log(clip_norm / 10, clip_norm * 10),
    }
