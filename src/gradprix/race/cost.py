"""Estimation of the duration of a race."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from gradprix.rules import Choice
from gradprix.tasks import Task
from gradprix.tasks.schedules import count_steps, passes
from gradprix.text.units import format_duration
from gradprix.training import MIN_STACK, UpdateCost
from gradprix.training.autotune import StackLayout

from .entry import Entry
from .plan import QUARTER, Plan

USABLE_SHARE = 0.9
"""Fraction of the time budget that a plan may use. The rest is a reserve for other load and for verdict and report."""


@dataclass(frozen=True)
class Cost:
    """Training cost on this machine or cluster, in seconds.

    Args:
        start: preflight and measurement, once per race.
        step: cost of a step per stack, independent of the stack's width.
        network: cost of a step per model.
        evaluation: cost of an evaluation on the validation set per model.
        shape: width of the stacks and number of processes.
        model: cost of the initialization of a model.
        at_least: True if the cost is a lower bound, because the run of a training loop was stopped early.
        updates: optimizer step of one model, by entry, for the entries whose optimizer steps are not part of `network`.
    """

    start: float
    step: float
    network: float
    evaluation: float
    shape: StackLayout
    model: float = 0.0
    at_least: bool = False
    updates: Mapping[str, UpdateCost] = field(default_factory=dict)

    def describe(self) -> str:
        """Describe what was measured, in a sentence."""
        if not self.step and not self.network:
            return f"Measured: a run takes {'more than ' * self.at_least}{format_duration(self.evaluation)}."
        width, processes = self.shape.width, self.shape.processes
        model = "one model" if width == 1 else f"a model in a stack of {width}"
        step, evaluation = format_duration(self.step / width + self.network), format_duration(self.evaluation)
        more = "".join(
            f", the optimizer step of {name} {format_duration(update.seconds)} more"
            for name, update in self.updates.items()
        )
        return (
            f"Measured: a training step of {model} takes {step}{more}, its evaluation on the validation set "
            f"{evaluation}, in each of {processes} processes; checks and measurement take "
            f"{format_duration(self.start)}."
        )

    def phase_seconds(self, rows: int, steps: float, evaluations: float) -> float:
        """Estimate the duration of a phase in seconds.

        Args:
            rows: number of models to train.
            steps: steps of each model.
            evaluations: evaluations of each model, in units of the validation set.
        """
        stacks = math.ceil(rows / (self.shape.width * self.shape.processes)) * self.shape.processes
        stacks = max(1, min(stacks, rows // min(MIN_STACK, self.shape.width)))
        rounds = math.ceil(stacks / self.shape.processes)
        each = rows / stacks * (self.model + steps * self.network + evaluations * self.evaluation)
        return rounds * (steps * self.step + each)


def estimate(plan: Plan, cost: Cost) -> float:
    """Estimate the duration of a race in seconds, from its plan and the measured cost."""
    total, tests = cost.start, _test_evaluations(plan)
    for phase in plan.phases:
        share = QUARTER if phase.name == "quarter" else 1.0
        evaluations = passes(plan.task.epochs * share) + tests * (phase.name != "tuning")
        for size, rows in _rows_by_batch_size(plan, phase.runs).items():
            total += cost.phase_seconds(rows, share * _steps(plan, size), evaluations)
    return total + sum(update_seconds(plan, cost).values())


def update_seconds(plan: Plan, cost: Cost) -> dict[str, float]:
    """Estimate the duration of the optimizer steps in `cost.updates` in the whole race, in seconds by entry."""
    totals = {}
    for entry in plan.entries:
        if update := cost.updates.get(entry.name):
            sizes = _batch_sizes(plan, entry)
            steps = sum(_steps(plan, size) for size in sizes) / len(sizes)
            runs = sum(
                phase.runs.get(entry.name, 0) * (QUARTER if phase.name == "quarter" else 1.0) for phase in plan.phases
            )
            totals[entry.name] = runs * steps * update.seconds / cost.shape.processes
    return totals


def _steps(plan: Plan, batch_size: int) -> int:
    """Return the number of steps of a run; 0 for a training loop, of which only the cost of a whole run is measured."""
    if not isinstance(plan.task, Task):
        return 0
    return count_steps(len(plan.task.loaded.split(0).train), batch_size, plan.task.epochs)


def _rows_by_batch_size(plan: Plan, counts: dict[str, int]) -> dict[int, int]:
    """Return the number of runs at each batch size, given the number of runs of each entry."""
    rows: defaultdict[int, float] = defaultdict(float)
    for entry in plan.entries:
        sizes = _batch_sizes(plan, entry)
        for size in sizes:
            rows[size] += counts.get(entry.name, 0) / len(sizes)
    return {size: math.ceil(count) for size, count in rows.items() if count}


def _batch_sizes(plan: Plan, entry: Entry) -> tuple[int, ...]:
    """Return the batch sizes of an entry.

    A tuned batch size is unknown in advance; all of its values are assumed to be equally frequent.
    """
    axis = entry.space.get("batch_size")
    return tuple(axis.values) if isinstance(axis, Choice) else (plan.batch_size(entry),)


def _test_evaluations(plan: Plan) -> float:
    """Return the cost of an evaluation on the test set, in units of an evaluation on the validation set."""
    if not isinstance(plan.task, Task):
        return 0.0
    split = plan.task.loaded.split(0)
    return float(len(split.test) / len(split.valid))


def available_seconds(minutes: float) -> float:
    """Return the number of seconds that a plan may take, given a time budget in minutes.

    Raises:
        ValueError: if the budget is not positive.
    """
    if not minutes > 0:
        raise ValueError(f"minutes = {minutes}: a time budget must be more than 0.")
    return 60 * minutes * USABLE_SHARE
