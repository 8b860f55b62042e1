"""Shared parts of network experiments: tuned learning rates, held-out seeds and stacked training."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from math import exp
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gradprix.race import ENTRIES
from gradprix.tasks import Task, digits, schedule
from gradprix.training.model_stack import quiet
from gradprix.training.trainer import Trainer, train_stack
from gradprix.training.trial import Outcome, Trial
from gradprix.tuning.learning_rate import grid_bounds, rate

from ._claim import Measured, mean

TUNING, FINAL = 7_000, 8_000
"""First tuning seed and first held-out seed."""
STEADY = digits.change(schedule="constant")
"""Digits at a constant learning rate: a decaying one would hide the noise and stalling that the claims are about."""


def is_more(effect: Measured, least: float, none: float = 0.0) -> bool | None:
    """Return True if an effect is significant and matters, False if it is too small to matter, else None.

    Args:
        effect: the effect.
        least: smallest effect that matters.
        none: value without an effect: 0, or 1 for a ratio.
    """
    if effect.ci95[0] > none and effect.effect >= least:
        return True
    return False if effect.ci95[1] < least else None


def times(what: str, logarithms: Sequence[float]) -> Measured:
    """Return the geometric mean of ratios; the interval is Student's t for their logarithms."""
    log_mean = mean(what, logarithms)
    return Measured(what, exp(log_mean.effect), (exp(log_mean.ci95[0]), exp(log_mean.ci95[1])), log_mean.n)


def seeds(quick: bool, most: int, first: int = FINAL) -> range:
    """Return the seeds of an experiment; a quarter of them for a quick one."""
    return range(first, first + (max(3, most // 4) if quick else most))


def trial(task: Task, name: str, lr: float, seed: int, judged: bool = True, **fixed: Any) -> Trial:
    """Return a trial of a race entry on a task.

    Args:
        task: the problem.
        name: name of the entry.
        lr: learning rate.
        seed: seed.
        judged: evaluate the test examples.
        **fixed: settings that differ from the entry's own.
    """
    entry = ENTRIES[name]
    values = entry.rule.values(**{**entry.fixed, **fixed, "lr": lr})
    size = task.batch_size if entry.batch_size is None else entry.batch_size
    return Trial(entry.rule, values, seed, size, task.epochs, task.schedule, judged)


def rate_grid(name: str, every: int = 2) -> list[float]:
    """Return learning rates over an entry's search space: every nth point of a race's grid."""
    low, high = grid_bounds(ENTRIES[name].space["lr"])  # type: ignore[arg-type]  # the entries named here search a range
    return [rate(point) for point in range(low, high + 1, every)]


@cache
def tuned(task: Task, names: tuple[str, ...], quick: bool, by: str = "valid", **fixed: Any) -> Mapping[str, float]:
    """Return the best learning rate of each entry, on seeds reserved for tuning.

    Args:
        task: the problem.
        names: entries with equal batch size.
        quick: use one seed and every third grid point, instead of three seeds and every other.
        by: `"valid"`, the final validation loss, as in a race; or `"train"`, the mean training loss of the last epoch,
            for claims about the loss reached in training.
        **fixed: settings that differ from the entries' own.
    """
    tuning_seeds = seeds(quick, 3, TUNING)[: 1 if quick else 3]
    candidates = [(name, lr) for name in names for lr in rate_grid(name, 3 if quick else 2)]
    trials = [trial(task, name, lr, seed, judged=False, **fixed) for name, lr in candidates for seed in tuning_seeds]
    losses = [_loss(outcome, by) for outcome in train_stack(task, trials)]
    means = [sum(losses[i * len(tuning_seeds) : (i + 1) * len(tuning_seeds)]) for i in range(len(candidates))]
    best = {
        name: min((loss, lr) for (entry, lr), loss in zip(candidates, means, strict=True) if entry == name)
        for name in names
    }
    return {name: lr for name, (_, lr) in best.items()}


def _loss(outcome: Outcome, by: str) -> float:
    if by == "valid" or outcome.diverged is not None:
        return outcome.valid_loss
    return outcome.curve[-1][1]


def finals(task: Task, rates: Mapping[str, float], run_seeds: Sequence[int]) -> dict[str, list[Outcome]]:
    """Train each entry at its learning rate on the same seeds; all entries have one batch size."""
    outcomes = train_stack(task, [trial(task, name, lr, seed) for name, lr in rates.items() for seed in run_seeds])
    return {name: outcomes[i * len(run_seeds) : (i + 1) * len(run_seeds)] for i, name in enumerate(rates)}


class Training:
    """Networks trained as in a race, in one stack, that can be inspected after any step.

    Args:
        task: the problem.
        trials: trials with equal batch size, epochs and schedule.
    """

    def __init__(self, task: Task, trials: Sequence[Trial]) -> None:
        self.task, self.count = task, len(trials)
        with quiet():
            self.trainer = Trainer(task, trials)
        self.examples = self.trainer.train.shape[1]
        self.batch = trials[0].batch_size or self.examples
        self.each = -(-self.examples // self.batch)  # steps per epoch
        self.total = trials[0].epochs * self.each

    def steps(self) -> Iterator[tuple[int, Tensor]]:
        """Train to the end; yield after each step its number, from 1, and the batch loss of each network before it."""
        trainer = self.trainer
        factor = schedule(trainer.budget.schedule, self.total)
        for t in range(self.total):
            if t % self.each == 0:
                order = torch.stack(
                    [torch.randperm(self.examples, generator=generator) for generator in trainer.orders]
                )
                shuffled = trainer.train.gather(1, order)
            start = t % self.each * self.batch
            with quiet():
                losses = trainer.step(shuffled[:, start : start + self.batch], factor(t))
            yield t + 1, losses[: self.count]

    def losses(self, part: Tensor) -> Tensor:
        """Return the loss of every network on each example, `[networks, examples]`.

        Args:
            part: the examples of each seed, shaped like `trainer.train`.
        """
        with quiet():
            _, outputs, targets = self.trainer.outputs(part)
        stacked = torch.stack([output.whole for output in outputs])
        losses = functional.cross_entropy(stacked.flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view(targets.shape)[: self.count].double()

    def correct(self, part: Tensor) -> Tensor:
        """Return a mask of correct predictions, `[networks, examples]`."""
        with quiet():
            _, outputs, targets = self.trainer.outputs(part)
        is_correct: Tensor = torch.stack([output.whole.argmax(-1) for output in outputs]) == targets
        return is_correct[: self.count]

    def metrics(self, part: Tensor) -> list[float]:
        """Return the metric of every network on its own examples."""
        with quiet():
            return self.trainer.evaluate(part)[1][: self.count]

    def weights(self, row: int) -> dict[str, Tensor]:
        """Return a copy of one network's current weights."""
        return {name: x[row].clone() for name, x in self.trainer.leaves.items()}
