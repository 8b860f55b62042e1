"""What experiments on networks share: tuned rates, fresh seeds, and many networks trained step by step."""

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
from gradprix.training.trainer import Lane, run_lane
from gradprix.training.trial import Outcome, Trial
from gradprix.tuning.learning_rate import rate, rungs

from ._claim import Measured, mean

TUNING, FINAL = 7_000, 8_000
"""Where the seeds that rates are chosen on begin, and the fresh ones."""
STEADY = digits.change(schedule="constant")
"""Digits at a constant rate, as the account has it: what it says of noise and of stalling is hidden by a decay."""


def is_more(found: Measured, least: float, none: float = 0.0) -> bool | None:
    """Whether something is surely more than nothing and as large as matters; None when it may be, and may not.

    Args:
        found: it.
        least: what matters.
        none: no difference: 0, or 1 for a ratio.
    """
    if found.ci95[0] > none and found.effect >= least:
        return True
    return False if found.ci95[1] < least else None


def times(what: str, logarithms: Sequence[float]) -> Measured:
    """The geometric mean of ratios, and its interval, which is Student's for their logarithms."""
    found = mean(what, logarithms)
    return Measured(what, exp(found.effect), (exp(found.ci95[0]), exp(found.ci95[1])), found.n)


def seeds(quick: bool, most: int, first: int = FINAL) -> range:
    """The seeds of an experiment: a quarter of them for a quick one."""
    return range(first, first + (max(3, most // 4) if quick else most))


def trial(task: Task, name: str, lr: float, seed: int, judged: bool = True, **fixed: Any) -> Trial:
    """A network of a task to be trained by an entry of a race.

    Args:
        task: the problem.
        name: of the entry.
        lr: its learning rate.
        seed: its seed.
        judged: whether the test examples are scored.
        **fixed: what else differs from the entry's own settings.
    """
    entry = ENTRIES[name]
    values = entry.rule.values(**{**entry.fixed, **fixed, "lr": lr})
    size = task.batch_size if entry.batch_size is None else entry.batch_size
    return Trial(entry.rule, values, seed, size, task.epochs, task.schedule, judged)


def ladder(name: str, every: int = 2) -> list[float]:
    """Rates over an entry's own search space: every other rung of a race's ladder, or every so manyth."""
    low, high = rungs(ENTRIES[name].space["lr"])  # type: ignore[arg-type]  # the entries named here search a range
    return [rate(rung) for rung in range(low, high + 1, every)]


@cache
def tuned(task: Task, names: tuple[str, ...], quick: bool, by: str = "valid", **fixed: Any) -> Mapping[str, float]:
    """The best rate of each entry, on seeds that are used for nothing else.

    Args:
        task: the problem.
        names: of entries that see as many examples a step.
        quick: one seed and every third rung, instead of three seeds and every other.
        by: `"valid"`, the validation loss after the last step, as a race tunes; or `"train"`, the mean training loss of
            the last pass, for claims about how far the loss comes down.
        **fixed: what else differs from the entries' own settings.
    """
    known = seeds(quick, 3, TUNING)[: 1 if quick else 3]
    each = [(name, lr) for name in names for lr in ladder(name, 3 if quick else 2)]
    trials = [trial(task, name, lr, seed, judged=False, **fixed) for name, lr in each for seed in known]
    found = [_loss(outcome, by) for outcome in run_lane(task, trials)]
    means = [sum(found[i * len(known) : (i + 1) * len(known)]) for i in range(len(each))]
    best = {name: min((loss, lr) for (who, lr), loss in zip(each, means, strict=True) if who == name) for name in names}
    return {name: lr for name, (_, lr) in best.items()}


def _loss(outcome: Outcome, by: str) -> float:
    if by == "valid" or outcome.diverged is not None:
        return outcome.valid_loss
    return outcome.curve[-1][1]


def finals(task: Task, rates: Mapping[str, float], known: Sequence[int]) -> dict[str, list[Outcome]]:
    """Each entry at its rate on the same seeds, all of one batch size."""
    outcomes = run_lane(task, [trial(task, name, lr, seed) for name, lr in rates.items() for seed in known])
    return {name: outcomes[i * len(known) : (i + 1) * len(known)] for i, name in enumerate(rates)}


class Training:
    """Networks trained as in a race, side by side, that can be looked at after any step.

    Args:
        task: the problem.
        trials: alike in batch size, epochs and schedule.
    """

    def __init__(self, task: Task, trials: Sequence[Trial]) -> None:
        self.task, self.count = task, len(trials)
        with quiet():
            self.lane = Lane(task, trials)
        self.examples = self.lane.train.shape[1]
        self.batch = trials[0].batch_size or self.examples
        self.each = -(-self.examples // self.batch)  # steps of a pass
        self.total = trials[0].epochs * self.each

    def steps(self) -> Iterator[tuple[int, Tensor]]:
        """Train to the end; after each step, its number from 1, and the loss of each network's batch before it."""
        lane = self.lane
        factor = schedule(lane.budget.schedule, self.total)
        for t in range(self.total):
            if t % self.each == 0:
                order = torch.stack([torch.randperm(self.examples, generator=generator) for generator in lane.orders])
                shuffled = lane.train.gather(1, order)
            start = t % self.each * self.batch
            with quiet():
                losses = lane.step(shuffled[:, start : start + self.batch], factor(t))
            yield t + 1, losses[: self.count]

    def losses(self, part: Tensor) -> Tensor:
        """The loss of every network on every one of some examples, `[networks, examples]`.

        Args:
            part: the examples of each seed, as `lane.train`.
        """
        with quiet():
            _, outputs, targets = self.lane.outputs(part)
        stacked = torch.stack([output.whole for output in outputs])
        each = functional.cross_entropy(stacked.flatten(0, 1), targets.flatten(), reduction="none")
        return each.view(targets.shape)[: self.count].double()

    def right(self, part: Tensor) -> Tensor:
        """Which of some examples each network answers rightly, `[networks, examples]`."""
        with quiet():
            _, outputs, targets = self.lane.outputs(part)
        answers: Tensor = torch.stack([output.whole.argmax(-1) for output in outputs]) == targets
        return answers[: self.count]

    def metrics(self, part: Tensor) -> list[float]:
        """The metric of every network on some examples of its own."""
        with quiet():
            return self.lane.evaluate(part)[1][: self.count]

    def weights(self, row: int) -> dict[str, Tensor]:
        """The weights of one network, as they are now."""
        return {name: x[row].clone() for name, x in self.lane.leaves.items()}
