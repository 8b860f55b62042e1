"""The best entries of a suite by several criteria, and how much this depends on single tasks (leave-one-out)."""

from collections.abc import Callable, Mapping
from statistics import fmean, median

from .suite_record import Regret, Selection, Selections, TaskLeftOut, TaskSummary

Tasks = Mapping[str, TaskSummary]
NEAR = 1.0
"""Largest regret, in margins, of an entry that counts as near the best."""


def regrets_of(entry: str, tasks: Tasks) -> dict[str, float]:
    """Return the regret of an entry, in margins, on each task on which it raced."""
    return {name: task.regrets[entry] for name, task in tasks.items() if entry in task.regrets}


def summarize_regrets(regrets: Mapping[str, float]) -> Regret:
    """Summarize regrets, in margins, by name of the task."""
    values, worst = list(regrets.values()), max(regrets, key=regrets.__getitem__)
    return Regret(
        mean=fmean(values), median=median(values), largest=regrets[worst], worst_task=worst, tasks=len(values)
    )


def complete_entries(tasks: Tasks) -> list[str]:
    """Return the names of the entries that raced on all tasks.

    Raises:
        ValueError: if there are none.
    """
    first, *others = tasks.values()
    names = [name for name in first.regrets if all(name in other.regrets for other in others)]
    if not names:
        raise ValueError("no optimizer raced on all tasks, so there is no single choice. Race the same on all of them.")
    return names


def select(tasks: Tasks) -> Selections:
    """Return the best entries by several criteria, among those that raced on all tasks."""
    names = complete_entries(tasks)

    def selection(score: Callable[[str, Tasks], float]) -> Selection:
        chosen = _smallest(names, score, tasks)
        others = {left_out: _smallest(names, score, rest) for left_out, rest in _leave_one_out(tasks).items()}
        return Selection(chosen, {name: other for name, other in others.items() if other != chosen})

    return Selections(
        mean=selection(lambda name, some: fmean(regrets_of(name, some).values())),
        median=selection(lambda name, some: median(regrets_of(name, some).values())),
        largest=selection(lambda name, some: round(max(regrets_of(name, some).values()), 1)),  # as it is displayed
        leading=selection(lambda name, some: -sum(name in task.leaders for task in some.values())),
        near=selection(lambda name, some: -sum(regret <= NEAR for regret in regrets_of(name, some).values())),
    )


def leave_tasks_out(tasks: Tasks) -> tuple[TaskLeftOut, ...]:
    """Choose a single entry without each task, and return its regret on that task; empty for a single task."""
    names = complete_entries(tasks)
    means = {name: fmean(regrets_of(name, tasks).values()) for name in names}
    overall = min(names, key=means.__getitem__)
    results = []
    for left_out, rest in _leave_one_out(tasks).items():
        regrets = {name: summarize_regrets(regrets_of(name, rest)) for name in names}
        choice = min(names, key=lambda name: regrets[name].mean)
        results.append(
            TaskLeftOut(
                task=left_out,
                choice=choice,
                mean=regrets[choice].mean,
                regret=tasks[left_out].regrets[choice],
                overall_mean=regrets[overall].mean,
                overall_largest=regrets[overall].largest,
            )
        )
    return tuple(results)


def _leave_one_out(tasks: Tasks) -> dict[str, Tasks]:
    """Return the other tasks for each task; empty for a single task."""
    others = {left_out: {name: task for name, task in tasks.items() if name != left_out} for left_out in tasks}
    return {left_out: rest for left_out, rest in others.items() if rest}


def _smallest(names: list[str], score: Callable[[str, Tasks], float], tasks: Tasks) -> tuple[str, ...]:
    """Return the names with the smallest score."""
    scores = {name: score(name, tasks) for name in names}
    least = min(scores.values())
    return tuple(name for name in names if scores[name] == least)
