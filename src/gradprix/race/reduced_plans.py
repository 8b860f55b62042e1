"""Reduction of plans: they omit parts of the requested protocol to fit a time budget."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gradprix.tasks import Task

from .entry import Entry
from .entry_registry import ENTRIES
from .plan import Plan
from .plan_description import Omission
from .plan_limits import FEWEST_SEEDS, FEWEST_STEPS

SHORTLIST = ("adamw", "nesterov", "nadam", "momentum", "rmsprop", "adam", "adagrad")
"""Entries to retain if time is short, the most important first. Distinct algorithms, and those that reached most of the
tuned targets of Dahl et al. 2023, arXiv:2306.07179, are first."""
MIN_ENTRIES = 3
"""Minimum number of entries. When it is reached, trials and seeds are reduced instead."""
PROTOCOL = ((26, 32), (26, 16), (19, 16), (13, 16), (13, 8), (10, 8), (10, FEWEST_SEEDS))
"""Pairs of (trials, maximum number of seeds), from the full protocol to the smallest that can detect a difference."""
EPOCHS = (0.5, 0.25, 0.125)
SMALLEST_PROTOCOLS = ((2, 10, FEWEST_SEEDS), (2, 6, FEWEST_SEEDS))
"""Tuples of (entries, trials, seeds) for models of which even a fraction of an epoch takes long. The trials cover only
the first phase of tuning."""


def reduced_plans(plan: Plan) -> Iterator[Plan]:
    """Yield plans that omit more and more of the requested protocol, starting with the complete plan.

    Entries are omitted first, then trials and seeds, then epochs.
    """
    order = order_entries(plan)
    counts = range(len(order), min(MIN_ENTRIES, len(order)) - 1, -1)

    def reduce_plan(task: Any, number: int, trials: int, seeds: int) -> Plan:
        retained = tuple(entry for entry in plan.entries if entry in order[:number])
        trials, seeds = min(trials, plan.trials), min(seeds, plan.seeds)
        return note_omissions(plan, replace(plan, task=task, entries=retained, trials=trials, seeds=seeds))

    tasks = [plan.task, *shorter_tasks(plan.task)] if isinstance(plan.task, Task) else [plan.task]
    for task in tasks:
        for number in counts if task is plan.task else (counts[-1],):
            for trials, seeds in PROTOCOL if number == counts[-1] else PROTOCOL[:1]:
                yield reduce_plan(task, number, trials, seeds)
    if tasks[-1].epochs <= 1 and isinstance(plan.task, Task):  # a model whose step takes long
        for number, trials, seeds in SMALLEST_PROTOCOLS:
            yield reduce_plan(tasks[-1], min(number, len(order)), trials, seeds)


def order_entries(plan: Plan) -> list[Entry]:
    """Return the entries of a plan in the order in which they are retained.

    The baseline and user-supplied entries are first, then the entries of `SHORTLIST`, then other built-in entries.
    """

    def priority(entry: Entry) -> int:
        if entry.name == plan.baseline or entry.name not in ENTRIES:
            return -1
        return SHORTLIST.index(entry.name) if entry.name in SHORTLIST else len(SHORTLIST)

    return sorted(plan.entries, key=priority)


def shorter_tasks(task: Task) -> Iterator[Task]:
    """Yield copies of a task with fewer and fewer epochs, down to a fraction of an epoch with a few full batches."""
    before, count = task.epochs, len(task.loaded.split(0).train)  # loaded before there are copies of the task
    for factor in EPOCHS:
        epochs = task.epochs * factor
        epochs = round(epochs) if epochs >= 1 else _part(count, task.batch_size, epochs)
        if epochs < before:
            yield task.change(epochs=epochs)
            before = epochs


def _part(count: int, batch_size: int, epochs: float) -> float:
    """Round a fraction of an epoch to full batches, with a minimum number of steps and at most one epoch."""
    number = max(FEWEST_STEPS, int(epochs * count / batch_size))
    return min(1, number * batch_size / count)


def note_omissions(requested: Plan, reduced: Plan) -> Plan:
    """Return the reduced plan, with its differences from the requested plan listed in `left_out`."""
    dropped = tuple(entry.name for entry in requested.entries if entry not in reduced.entries)
    numbers = {
        "optimizers": (len(requested.entries), len(reduced.entries)),
        "trials": (requested.trials, reduced.trials),
        "seeds": (requested.seeds, reduced.seeds),
        "epochs": (requested.task.epochs, reduced.task.epochs),
    }
    omissions = [
        Omission(part, before - now, before, dropped if part == "optimizers" else ())
        for part, (before, now) in numbers.items()
        if now < before
    ]
    return replace(reduced, left_out=tuple(omissions))
