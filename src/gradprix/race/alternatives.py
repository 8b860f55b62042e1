"""Alternatives to a race that does not fit its time budget."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from gradprix.tasks import Task

from .cost import USABLE_SHARE, Cost, estimate
from .entry import Entry
from .entry_registry import ENTRIES
from .plan import Plan
from .plan_limits import FEWEST_SEEDS
from .reduced_plans import MIN_ENTRIES, order_entries, shorter_tasks
from .tune_plan import TunePlan

FEW_TRIALS = 10
"""Number of tuning trials of the alternatives, which covers two phases of tuning."""


@dataclass(frozen=True)
class Alternative:
    """What can be run instead of a race that does not fit its time budget.

    Args:
        settings: the options that replace `minutes`, by name; `"optimizer"` if a single optimizer is tuned.
        plan: what is run with these options.
        seconds: estimated duration.
    """

    settings: dict[str, Any]
    plan: Plan
    seconds: float


class TooLittleTimeError(ValueError):
    """Not even the smallest race fits a time budget.

    Args:
        message: what takes how long.
        alternatives: what can be run instead.
    """

    def __init__(self, message: str, alternatives: tuple[Alternative, ...] = ()) -> None:
        super().__init__(message)
        self.alternatives = alternatives


def find_alternatives(plan: Plan, smallest: Plan, cost: Cost) -> tuple[Alternative, ...]:
    """Return what can be run instead of a race that does not fit its time budget, the fastest first.

    These are the smallest race with as much time as it takes; two optimizers with the full length of training; three
    with the shortest one; and tuning a single optimizer with either length.

    Args:
        plan: requested plan.
        smallest: the smallest plan of a race.
        cost: measured training cost.
    """
    few = replace(plan, trials=min(FEW_TRIALS, plan.trials), seeds=min(FEWEST_SEEDS, plan.seeds))
    built_in = [entry for entry in order_entries(plan) if entry.name in ENTRIES]
    shorter = [replace(few, task=task) for task in shorter_tasks(plan.task)][-1:] if isinstance(plan.task, Task) else []
    races = [_only(few, built_in[:2]), *(_only(each, built_in[:MIN_ENTRIES]) for each in shorter)]
    tuned = [_tune(each, entry) for each in (few, *shorter) for entry in built_in[:1]]
    others = [each for each in (*races, *tuned) if _shape(each) != _shape(smallest)]
    options = [({"minutes": minutes_for(estimate(smallest, cost))}, smallest)]
    options += [(_settings(plan, each), each) for each in others]
    alternatives = (Alternative(settings, each, estimate(each, cost)) for settings, each in options)
    return tuple(sorted(alternatives, key=lambda each: each.seconds))


def minutes_for(seconds: float) -> float:
    """Return the smallest time budget, in tenths of a minute or in minutes, into which so many seconds fit."""
    minutes = seconds / USABLE_SHARE / 60
    return math.ceil(minutes) if minutes > 10 else math.ceil(10 * minutes) / 10


def _only(plan: Plan, entries: list[Entry]) -> Plan:
    """Return the plan with some entries; with all of them if it needs others, which have no name on a command line."""
    is_possible = len(entries) > 1 and plan.baseline in (None, *(entry.name for entry in entries))
    return replace(plan, entries=tuple(entries)) if is_possible else plan


def _tune(plan: Plan, entry: Entry) -> TunePlan:
    """Return the plan of tuning one of the entries of a race."""
    given = {each.name: getattr(plan, each.name) for each in fields(Plan)}
    return TunePlan(
        **{**given, "entries": (entry,), "baseline": None}, default=entry if entry.has_default_rate else None
    )


def _shape(plan: Plan) -> tuple[Any, ...]:
    """Return the parts of a plan that a time budget reduces."""
    return {entry.name for entry in plan.entries}, plan.trials, plan.seeds, plan.task.epochs


def _settings(requested: Plan, plan: Plan) -> dict[str, Any]:
    """Return the options in which a plan differs from the requested one; tuning has other defaults."""
    tunes = isinstance(plan, TunePlan)
    entries, epochs = ",".join(entry.name for entry in plan.entries), plan.task.epochs
    options = {
        "optimizer" if tunes else "optimizers": (entries, tunes or plan.entries != requested.entries),
        "epochs": (epochs, epochs != requested.task.epochs),
        "trials": (plan.trials, tunes or plan.trials != requested.trials),
        "seeds": (plan.seeds, tunes or plan.seeds != requested.seeds),
    }
    return {name: value for name, (value, differs) in options.items() if differs}
