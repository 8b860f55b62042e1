"""Time budgets: reduction of a plan until its estimated duration fits.

Timings vary, so that two calls may reduce a plan differently. Therefore the chosen plan is saved with the race.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gradprix.executors.executor import Executor
from gradprix.stats.verdict import MOST_SEEDS
from gradprix.tasks import Task

from .alternatives import TooLittleTimeError, find_alternatives, minutes_for
from .cost import Cost, available_seconds, estimate
from .cost_measurement import measure_cost
from .journal import FittedPlan, Journal
from .live_files import Watch
from .plan import Plan
from .reduced_plans import note_omissions, reduced_plans


def fit(plan: Plan, minutes: float, cost: Cost) -> Plan:
    """Return the least reduced plan that fits a time budget.

    Time that remains is used for more epochs, then for more final seeds.

    Args:
        plan: requested plan.
        minutes: time budget in minutes.
        cost: measured training cost.

    Raises:
        TooLittleTimeError: if not even the smallest plan fits.
    """
    available = available_seconds(minutes)

    def fits(candidate: Plan) -> bool:
        return not cost.at_least and estimate(candidate, cost) <= available

    candidates = list(reduced_plans(plan))
    fitting = next(filter(fits, candidates), None)
    if fitting is None:
        raise _too_little_time(minutes, plan, candidates[-1], cost)
    fitting = _add_epochs(fitting, plan.task.epochs, fits)
    seeds = _largest(lambda seeds: fits(replace(fitting, seeds=seeds)), fitting.seeds, MOST_SEEDS)
    return note_omissions(plan, replace(fitting, seeds=seeds))


def _too_little_time(minutes: float, plan: Plan, smallest: Plan, cost: Cost) -> TooLittleTimeError:
    """Return the error for a time budget into which even the smallest plan does not fit.

    Args:
        minutes: time budget in minutes.
        plan: requested plan.
        smallest: the smallest plan.
        cost: measured training cost, or a lower bound of it.
    """
    least, needed = "more than" if cost.at_least else "about", minutes_for(estimate(smallest, cost))
    message = (
        f"minutes = {minutes:g}: even {len(smallest.entries)} optimizers with {smallest.trials} trials and "
        f"{smallest.seeds} seeds take {least} {needed:g} minutes here. {cost.describe()}"
    )
    if cost.at_least:
        return TooLittleTimeError(f"{message} Give that much, or a faster loop.")
    return TooLittleTimeError(message, find_alternatives(plan, smallest, cost))


def _add_epochs(plan: Plan, requested: float, fits: Callable[[Plan], bool]) -> Plan:
    """Return the plan with the largest number of epochs, or fraction of an epoch, that fits.

    Args:
        plan: plan that fits.
        requested: requested number of epochs, which is the maximum.
        fits: function that returns True if a plan fits.
    """
    task = plan.task
    if not isinstance(task, Task) or task.epochs >= requested:
        return plan
    size, count = task.batch_size, len(task.loaded.split(0).train)

    def with_epochs(epochs: float) -> Plan:
        return replace(plan, task=task.change(epochs=epochs))

    def with_batches(number: int) -> Plan:
        return with_epochs(min(1, number * size / count))

    if fits(one := with_epochs(1)):
        return with_epochs(_largest(lambda n: fits(with_epochs(n)), 1, int(requested))) if requested >= 1 else one
    low, high = round(task.epochs * count / size), int(min(1, requested) * count / size)
    return with_batches(_largest(lambda n: fits(with_batches(n)), low, high)) if high > low else plan


def _largest(fits: Callable[[int], bool], low: int, high: int) -> int:
    """Return the largest number from `low` to `high` that fits, found by bisection.

    Args:
        fits: function that returns True if a number fits.
        low: smallest number, which is known to fit.
        high: largest number.
    """
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def fit_to_budget(
    plan: Plan, minutes: float, engine: Executor, out: Path | None, watch: Watch = lambda *_: None
) -> tuple[Plan, float]:
    """Reduce a plan to a time budget.

    The choice is saved in the folder, so that later calls for the same plan and budget return the same plan.

    Args:
        plan: requested plan.
        minutes: time budget in minutes.
        engine: executor, which measures the training cost.
        out: folder of the race; None does not save the choice.
        watch: progress callback.

    Returns:
        The reduced plan, and its estimated duration in seconds.

    Raises:
        TooLittleTimeError: if not even the smallest plan fits.
        ValueError: if the budget is not positive.
    """
    available_seconds(minutes)  # raises an error before a folder is created
    key = f"{plan.key} {minutes:g}"
    with Journal(out) as journal:
        fitted = journal.fitted.get(key)
    if fitted is None:
        cost = measure_cost(plan, engine, watch, minutes)
        chosen = fit(plan, minutes, cost)
        names = [entry.name for entry in chosen.entries]
        fitted = FittedPlan(names, chosen.trials, chosen.seeds, chosen.task.epochs, estimate(chosen, cost))
        with Journal(out) as journal:
            journal.fitted = {**journal.fitted, key: fitted}
    task = plan.task.change(epochs=fitted.epochs) if isinstance(plan.task, Task) else plan.task
    entries = tuple(entry for entry in plan.entries if entry.name in fitted.entries)
    reduced = replace(plan, task=task, entries=entries, trials=fitted.trials, seeds=fitted.seeds)
    return note_omissions(plan, reduced), fitted.seconds
