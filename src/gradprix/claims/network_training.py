"""Shared parts of network experiments: tuned learning rates, held-out seeds and stacked training."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gradprix.optim.variants import option_defaults, with_options
from gradprix.race import ENTRIES
from gradprix.rules import Rule
from gradprix.tasks import Task, digits, schedule
from gradprix.training import ModelStack, Outcome, Trial, compute_outputs, evaluate, runtime_settings, train_stack
from gradprix.tuning.learning_rate_grid import grid_bounds, grid_learning_rate

TUNING, FINAL = 7_000, 8_000  # first tuning seed and first held-out seed
CONSTANT = digits.change(schedule="constant")
"""Digits at a constant learning rate. A schedule would hide noise and stalling, which the claims are about."""
DIGITS_MARGIN = 100 * digits.metric.margin  # margin of digits in percentage points


def seeds(quick: bool, most: int, first: int = FINAL) -> range:
    """Return the seeds of an experiment.

    Args:
        quick: return a quarter of the seeds, but at least three.
        most: number of seeds.
        first: first seed.
    """
    return range(first, first + (max(3, most // 4) if quick else most))


def make_trial(task: Task, name: str, lr: float, seed: int, evaluates_test: bool = True, **fixed: Any) -> Trial:
    """Return a trial of a race entry on a task.

    Args:
        task: the problem.
        name: name of the entry.
        lr: learning rate.
        seed: seed of the run.
        evaluates_test: evaluate the network on the test examples.
        **fixed: settings that replace the entry's own, and options that select a variant of its rule.
    """
    entry = ENTRIES[name]
    assert isinstance(entry.rule, Rule)
    rule, options = with_options(entry.rule, fixed), option_defaults(entry.rule)
    given = {**entry.fixed, **{key: value for key, value in fixed.items() if key not in options}}
    size = task.batch_size if entry.batch_size is None else entry.batch_size
    return Trial(rule, rule.values(**given, lr=lr), seed, size, task.epochs, task.schedule, evaluates_test)


@cache
def tuned(task: Task, names: tuple[str, ...], quick: bool, by: str = "valid", **fixed: Any) -> Mapping[str, float]:
    """Tune the learning rate of each entry on seeds that are reserved for tuning, and return the best ones.

    Args:
        task: the problem.
        names: names of entries, all with the same batch size.
        quick: use one seed and every third grid point, instead of three seeds and every second grid point.
        by: criterion: `"valid"`, the final validation loss, as in a race; or `"train"`, the mean training loss of the
            last epoch, for claims about the loss reached in training.
        **fixed: settings that replace the entries' own.
    """
    tuning_seeds = seeds(quick, 3, TUNING)[: 1 if quick else 3]
    grids = {}
    for name in names:
        low, high = grid_bounds(ENTRIES[name].space["lr"])  # type: ignore[arg-type]  # these entries search a range
        grids[name] = [grid_learning_rate(point) for point in range(low, high + 1, 3 if quick else 2)]
    candidates = [(name, lr) for name in names for lr in grids[name]]
    trials = [
        make_trial(task, name, lr, s, evaluates_test=False, **fixed) for name, lr in candidates for s in tuning_seeds
    ]
    losses = [
        outcome.valid_loss if by == "valid" or outcome.diverged is not None else outcome.curve[-1][1]
        for outcome in train_stack(task, trials)
    ]
    total = [sum(losses[i : i + len(tuning_seeds)]) for i in range(0, len(losses), len(tuning_seeds))]
    scores = dict(zip(candidates, total, strict=True))
    return {name: min(grids[name], key=lambda lr, name=name: (scores[name, lr], lr)) for name in names}  # type: ignore[misc]


def train_final(task: Task, rates: Mapping[str, float], run_seeds: Sequence[int]) -> dict[str, list[Outcome]]:
    """Train each entry at its learning rate on the same seeds.

    Args:
        task: the problem.
        rates: learning rate by name of the entry. All entries must have the same batch size.
        run_seeds: the seeds.

    Returns:
        Outcomes by name of the entry, one per seed.
    """
    outcomes = iter(train_stack(task, [make_trial(task, name, lr, s) for name, lr in rates.items() for s in run_seeds]))
    return {name: [next(outcomes) for _ in run_seeds] for name in rates}


class Training:
    """A stack of models that are trained as in a race and can be inspected after each step.

    Args:
        task: the problem.
        trials: trials with equal batch size, epochs and schedule.
    """

    def __init__(self, task: Task, trials: Sequence[Trial]) -> None:
        self.task, self.count = task, len(trials)
        with runtime_settings():
            self.stack = ModelStack(task, trials)
        self.examples = self.stack.data.train.shape[1]
        self.batch_size, self.epochs = trials[0].batch_size or self.examples, int(trials[0].epochs)
        self.steps_per_epoch = -(-self.examples // self.batch_size)
        self.total_steps = self.epochs * self.steps_per_epoch
        self.schedule = schedule(trials[0].schedule, self.total_steps)

    def steps(self) -> Iterator[tuple[int, Tensor]]:
        """Train to the end, yielding after each step.

        Yields:
            The step number, from 1, and the loss of each model on the step's batch, before the step, `[models]`.
        """
        t = 0
        for _ in range(self.epochs):
            for index in self.stack.data.shuffled_batches(self.batch_size):
                with runtime_settings():
                    losses = self.stack.step(index, self.schedule(t))
                t += 1
                yield t, losses[: self.count]

    def run(self) -> None:
        """Train to the end."""
        for _ in self.steps():
            pass

    def losses(self, part: Tensor) -> Tensor:
        """Return the loss of every model on each example, `[models, examples]`.

        Args:
            part: indices of the examples of each seed, shaped like `stack.data.train`.
        """
        with runtime_settings():
            evaluation = compute_outputs(self.stack, part)
        targets = evaluation.targets.expanded()
        stacked = torch.stack([output.whole for output in evaluation.outputs])
        losses = functional.cross_entropy(stacked.flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view(targets.shape)[: self.count].double()

    def correct(self, part: Tensor) -> Tensor:
        """Return a mask of the examples that each model predicts correctly, `[models, examples]`.

        Args:
            part: indices of the examples of each seed, shaped like `stack.data.train`.
        """
        with runtime_settings():
            evaluation = compute_outputs(self.stack, part)
        predictions = torch.stack([output.whole.argmax(-1) for output in evaluation.outputs])
        is_correct: Tensor = predictions == evaluation.targets.expanded()
        return is_correct[: self.count]

    def metrics(self, part: Tensor) -> list[float]:
        """Return the task's metric for every model.

        Args:
            part: indices of the examples of each seed, shaped like `stack.data.train`.
        """
        with runtime_settings():
            return evaluate(self.stack, part)[1][: self.count]

    def weights(self, row: int) -> dict[str, Tensor]:
        """Return a copy of the current weights of the model in a row of the stack, by name."""
        return {name: x[row].clone() for name, x in self.stack.parameters.items()}
