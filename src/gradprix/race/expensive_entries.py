"""Warning before a race about entries that take many times as long as others because of their optimizer steps."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gradprix import rules
from gradprix.executors.executor import Executor
from gradprix.text.expensive_entries import format_expensive_entry
from gradprix.training import StackLayout, seconds_of_one, without_update
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.update_cost import SQUARE, underlying_rule

from .cost import Cost, estimate, update_seconds
from .cost_measurement import seconds_to_evaluate, time_updates
from .entry import Entry
from .live_files import Watch
from .plan import Plan

MIN_RATIO = 5.0
"""Ratio of the time of an entry to that of an elementwise optimizer from which on the entry is expensive. Leaving out a
faster one saves little."""
MIN_SHARE = 0.5
"""Share of the time of a race that expensive entries take together, from which on they are reported: what the race
mostly waits for is worth knowing, and a good optimizer may take its part of the time."""
MIN_SECONDS = 60.0
"""Minimum time of the optimizer steps of an expensive entry, on the whole: a shorter wait deserves no warning."""
LARGE_SIDE = 256
"""Side of a square matrix from which on its decomposition takes most of the time of an optimizer step."""
PROBED_MODELS = 16
"""Number of models in the stack whose training step and evaluation are timed for comparison."""


class ExpensiveEntryWarning(UserWarning):
    """Warning about an entry that takes many times as long as others because of its optimizer steps."""


@dataclass(frozen=True)
class ExpensiveEntry:
    """Entry that takes many times as long as others because of its optimizer steps.

    Args:
        name: name of the entry.
        seconds: estimated duration of its training runs.
        ratio: this duration divided by that of an entry with an elementwise optimizer.
        side: side of the largest square matrix in the state of the optimizer; 0 without large square matrices.
        limits: hyperparameters that limit the side, with their values.
        rule: name of the optimizer in `gradprix.rules`; None if it is not built in.
        fixed: fixed hyperparameters of the entry.
        is_alone: True if there are no other entries, so that it cannot be left out.
    """

    name: str
    seconds: float
    ratio: float
    side: int = 0
    limits: Mapping[str, float] = field(default_factory=dict)
    rule: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    is_alone: bool = False


def warn_about_expensive_entries(
    plan: Plan, mode: ExecutionMode, engine: Executor, watch: Watch = lambda *_: None
) -> None:
    """Warn about each entry of a plan that takes many times as long as others, before the race starts.

    Only optimizer steps that are not elementwise are timed, so that most races are not delayed.

    Args:
        plan: plan of the race.
        mode: execution mode of the race.
        engine: executor of the race.
        watch: progress callback.

    Warns:
        ExpensiveEntryWarning: for each expensive entry.
    """
    try:
        updates = time_updates(plan, mode, engine, watch)
        if not updates:
            return
        costly = next(entry for entry in plan.entries if entry.name in updates)
        trial = without_update(plan.careful_trial(costly, 0))
        usual = plan.task, [trial], mode, PROBED_MODELS if mode.stacked else 1
        network, evaluation = engine.call(seconds_of_one, *usual), engine.call(seconds_to_evaluate, *usual)
    except Exception:  # a failed timing must not prevent the race
        return
    shape = StackLayout(1, max(1, engine.workers))
    report_expensive_entries(plan, Cost(0.0, 0.0, network, evaluation, shape, updates=updates))


def report_expensive_entries(plan: Plan, cost: Cost) -> None:
    """Warn about each expensive entry of a plan whose cost is measured; see `find_expensive_entries`.

    Warns:
        ExpensiveEntryWarning: for each expensive entry.
    """
    for each in find_expensive_entries(plan, cost):
        warnings.warn(format_expensive_entry(each), ExpensiveEntryWarning, stacklevel=2)


def find_expensive_entries(plan: Plan, cost: Cost) -> list[ExpensiveEntry]:
    """Return the entries that take at least `MIN_RATIO` times as long as one with an elementwise optimizer.

    They are returned only if they take `MIN_SHARE` of the time of the race together; a single entry, as in tuning, only
    if large matrices are the reason, which the user may limit.

    Args:
        plan: plan of a race.
        cost: its training cost, with that of the optimizer steps that are not elementwise.
    """
    usual = estimate(plan, replace(cost, start=0.0, updates={})) / len(plan.entries)
    updates = update_seconds(plan, cost)
    expensive = [
        _describe(entry, usual + updates[entry.name], usual, cost.updates[entry.name].side)
        for entry in plan.entries
        if updates.get(entry.name, 0.0) >= max(MIN_SECONDS, (MIN_RATIO - 1) * usual)
    ]
    whole = len(plan.entries) * usual + sum(updates.values())
    if sum(each.seconds for each in expensive) < MIN_SHARE * whole:
        return []
    return expensive if len(plan.entries) > 1 else [replace(each, is_alone=True) for each in expensive if each.side]


def _describe(entry: Entry, seconds: float, usual: float, side: int) -> ExpensiveEntry:
    """Describe an expensive entry; `usual` is the time of an entry with an elementwise optimizer, in seconds."""
    rule, name, limits = underlying_rule(entry.rule), None, {}
    if rule is not None:
        name = rule.name if rule in vars(rules).values() else None
        values = {**rule.hyperparameters, **entry.fixed}
        squares = [state for state in rule.state.values() if state.kind in SQUARE]
        limits = {state.limit: float(values[state.limit]) for state in squares if state.limit is not None}
    large = (side, limits) if side >= LARGE_SIDE else (0, {})
    return ExpensiveEntry(entry.name, seconds, seconds / usual, *large, name, entry.fixed)
