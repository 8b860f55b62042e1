"""Small tasks on which findings train models of their own, tuned and final runs on them, and differences in margins."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from gradprix.race import Entry, Plan
from gradprix.tasks import Task, find
from gradprix.tasks.schedules import shorten
from gradprix.training import Outcome, train_stack
from gradprix.tuning.learning_rate_grid import grid_bounds, grid_learning_rate, nearest_grid_point

TASKS = ("digits", "tailed", "diamonds", "sentiment")
"""Tasks: an MLP on pictures, on pictures with rare classes and on a table, and a transformer on sentences."""
DEFAULT_SIZE = ("digits", "tailed")
"""Tasks whose default preset is small enough. The others have the preset `small`."""
SPACING, TUNING_SEEDS = 2, 2  # distance of learning rates, in sixths of a decade, and number of tuning seeds
QUICK_SPACING, MOST_RATES = 6, 16
Arm = tuple[Entry, float]
"""An optimizer with its learning rate."""


@cache
def small_task(name: str, quick: bool, small: bool = False) -> Task:
    """Return one of the tasks.

    Args:
        name: name of the task.
        quick: train for one epoch.
        small: use the preset `small` of every task.
    """
    task = find(name, None if name in DEFAULT_SIZE and not small else "small", None)
    return task.change(epochs=1) if quick else task


def train(
    task: Task, arms: Sequence[Arm], seeds: int, is_final: bool = True, share: float = 1.0
) -> list[list[Outcome]]:
    """Train every arm on the same seeds.

    Args:
        task: the task.
        arms: optimizers with their learning rates.
        seeds: number of seeds.
        is_final: use held-out seeds and evaluate on the test examples; otherwise use tuning seeds.
        share: share of the training examples. A run with fewer examples has a whole learning-rate schedule.

    Returns:
        For each arm a list of outcomes, one for each seed.
    """
    plan = Plan(task, tuple({entry.name: entry for entry, _ in arms}.values()))
    make = plan.final_trial if is_final else plan.tuning_trial
    trials = [make(entry, {"lr": lr}, seed) for entry, lr in arms for seed in range(seeds)]
    if share < 1:
        examples = len(task.loaded.split(0).train)
        trials = [replace(t, epochs=shorten(t.epochs, share, examples, t.batch_size)) for t in trials]
    outcomes: dict[str, Outcome] = {}
    for key in dict.fromkeys(t.stack_key for t in trials):
        stack = list({t.key: t for t in trials if t.stack_key == key}.values())
        outcomes |= dict(zip((t.key for t in stack), train_stack(task, stack), strict=True))
    return [[outcomes[t.key] for t in trials[i : i + seeds]] for i in range(0, len(trials), seeds)]


def learning_rates(entry: Entry, quick: bool) -> list[float]:
    """Return the learning rates that are tried first for an optimizer, over its whole search space."""
    low, high = grid_bounds(entry.space["lr"])  # type: ignore[arg-type]  # the entries of findings search a range
    return [grid_learning_rate(point) for point in range(low, high + 1, QUICK_SPACING if quick else SPACING)]


def tuning_losses(task: Task, arms: Sequence[Arm], quick: bool) -> list[float]:
    """Return the mean validation loss of every arm on the tuning seeds; infinite if a run diverged."""
    runs = train(task, arms, 1 if quick else TUNING_SEEDS, is_final=False)
    return [float(np.mean([outcome.valid_loss for outcome in each])) for each in runs]


def tune(task: Task, entries: Sequence[Entry], quick: bool) -> list[tuple[float, Arm]]:
    """Return each optimizer at the learning rate with the smallest mean validation loss on the tuning seeds.

    If that is the smallest or the largest learning rate so far, the next one beyond it is tried as well.

    Args:
        task: the task.
        entries: the optimizers, which must have different names.
        quick: use one seed and fewer learning rates, and stay within the search space.

    Returns:
        For each optimizer the loss, and the optimizer with its learning rate.
    """
    tried: dict[str, dict[float, float]] = {entry.name: {} for entry in entries}
    wanted: list[Arm] = [(entry, lr) for entry in entries for lr in learning_rates(entry, quick)]
    while wanted:
        for (entry, lr), loss in zip(wanted, tuning_losses(task, wanted, quick), strict=True):
            tried[entry.name][lr] = loss
        wanted = [] if quick else [(entry, lr) for entry in entries for lr in _beyond(tried[entry.name])]
    best = [min((loss, lr) for lr, loss in tried[entry.name].items()) for entry in entries]
    return [(loss, (entry, lr)) for entry, (loss, lr) in zip(entries, best, strict=True)]


def _beyond(losses: Mapping[float, float]) -> list[float]:
    """Return the next learning rate beyond the best one if that is at an end, up to `MOST_RATES` in all."""
    best, ends = min(losses, key=lambda lr: (losses[lr], lr)), {min(losses): -SPACING, max(losses): SPACING}
    if best not in ends or len(losses) >= MOST_RATES or losses[best] == np.inf:
        return []
    return [grid_learning_rate(nearest_grid_point(best) + ends[best])]


def lead_in_margins(task: Task, a: Sequence[Outcome], b: Sequence[Outcome]) -> np.ndarray:
    """Return by how much the test metric of `a` is better than that of `b`, in margins, for each seed.

    Args:
        task: the task.
        a: final runs on some seeds.
        b: final runs on the same seeds.
    """
    one, other = (np.array([outcome.test_metric for outcome in runs], dtype=np.float64) for runs in (a, b))
    sign = 1 if task.metric.higher_is_better else -1
    better = (max if sign > 0 else min)(one.mean(), other.mean())
    return sign * (one - other) / task.metric.least(float(better))
