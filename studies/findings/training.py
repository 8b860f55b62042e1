"""Tuned learning rates and final runs of optimizers, in this process.

Learning rates are chosen by the validation loss on seeds of their own, on a grid that is extended until the best one is
inside, so that an optimizer whose best learning rates are unusual is not at a disadvantage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from gradprix.rules import Rule
from gradprix.tasks import Task
from gradprix.training import Outcome, Trial, train_stack
from gradprix.tuning.learning_rate_grid import grid_learning_rate, nearest_grid_point

TUNING, FINAL = 7_000, 8_000  # first tuning seed and first held-out seed


@dataclass(frozen=True)
class Arm:
    """An optimizer whose learning rate is tuned.

    Args:
        rule: the optimizer.
        low: lowest learning rate at first.
        high: highest learning rate at first.
        fixed: values of other hyperparameters than the defaults.
    """

    rule: Rule
    low: float
    high: float
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def trial(self, task: Task, lr: float, seed: int, is_final: bool) -> Trial:
        """Return the specification of a training run; final runs are evaluated on test examples."""
        values = self.rule.values(**self.fixed, lr=lr)
        return Trial(self.rule, values, seed, task.batch_size, task.epochs, task.schedule, is_final)


def tune(task: Task, arms: Sequence[Arm], seeds: int, spacing: int = 2, most: int = 24) -> tuple[Arm, float]:
    """Return the arm and the learning rate with the lowest mean validation loss.

    Args:
        task: the problem.
        arms: variants of an optimizer, of which one is chosen.
        seeds: number of tuning seeds.
        spacing: distance of learning rates, in sixths of a decade.
        most: maximum number of learning rates of an arm.
    """
    scored = [(*_tune_rate(task, arm, seeds, spacing, most), arm) for arm in arms]
    _, lr, arm = min(scored, key=lambda each: each[0])
    return arm, lr


def _tune_rate(task: Task, arm: Arm, seeds: int, spacing: int, most: int) -> tuple[float, float]:
    """Return the lowest mean validation loss and its learning rate."""
    scores: dict[int, float] = {}
    wanted = [*range(nearest_grid_point(arm.low), nearest_grid_point(arm.high) + 1, spacing)]
    while wanted and len(scores) < most:
        trials = [
            arm.trial(task, grid_learning_rate(point), TUNING + i, False) for point in wanted for i in range(seeds)
        ]
        losses = np.reshape([outcome.valid_loss for outcome in train_stack(task, trials)], (len(wanted), seeds))
        scores |= dict(zip(wanted, losses.mean(1).tolist(), strict=True))
        best = min(scores, key=lambda point: (scores[point], point))
        wanted = [point for point in (best - spacing, best + spacing) if point not in scores]
    return scores[best], grid_learning_rate(best)


def train(task: Task, arms: Sequence[tuple[Arm, float]], seeds: int) -> list[list[Outcome]]:
    """Train optimizers at their learning rates on the same held-out seeds, and return their outcomes.

    Args:
        task: the problem.
        arms: optimizers with their learning rates.
        seeds: number of seeds.

    Returns:
        For each optimizer a list of outcomes, one for each seed.
    """
    trials = [arm.trial(task, lr, FINAL + i, True) for arm, lr in arms for i in range(seeds)]
    outcomes = []
    for _, stack in groupby(trials, key=lambda trial: trial.stack_key):  # optimizers that can share a stack
        outcomes += train_stack(task, list(stack))
    return [outcomes[i : i + seeds] for i in range(0, len(outcomes), seeds)]
