"""Description of a plan, as part of the record of its race."""

from typing import NamedTuple

import msgspec
from msgspec import field

from gradprix.training.execution_mode import ExecutionMode
from gradprix.utils.margins import absolute_margin

Value = bool | int | float | str | None
"""Value of a hyperparameter."""


class MetricDescription(msgspec.Struct, frozen=True, kw_only=True):
    """The metric of a task; see `gradprix.Metric`."""

    name: str
    higher_is_better: bool
    margin: float
    relative: bool
    percent: bool

    def least(self, better: float) -> float:
        """Return the smallest difference that matters, in the metric's units, given the better of two means."""
        return absolute_margin(self.margin, self.relative, better)


class Omission(NamedTuple):
    """Part of the requested protocol that a race omits to fit a time budget.

    Args:
        part: `optimizers`, `trials`, `seeds` or `epochs`.
        omitted: omitted number of optimizers, trials, seeds or epochs.
        requested: requested number of them.
        names: names of the omitted optimizers.
    """

    part: str
    omitted: int | float
    requested: int | float
    names: tuple[str, ...] = ()


class PlannedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Configuration of an entry, as far as it is displayed."""

    name: str
    optimizer: str
    rule: str
    fixed: dict[str, Value]
    space: dict[str, list[Value]]
    batch_size: int
    updates: int | None
    schedule: str | None = None
    sam_rho: float | None = None


class PlanDescription(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Plan of a race as it was run.

    Args:
        chance_level: score of a diverged run.
        epochs: epochs per run, or a fraction of an epoch.
        options: options of the training that the task sets; see `gradprix.tasks.Task.options`.
        loop: True if the task is a custom training loop.
        tune: names of the tuned hyperparameters, the learning rate first.
        crossed: True if confidence intervals cover the variation over test examples as well as over seeds.
        tested: True if the final scores are computed on examples that tuning did not use.
        mode: execution mode of the training runs.
    """

    task: str
    fingerprint: str
    metric: MetricDescription
    baseline: str | None
    chance_level: float = field(name="trivial")
    epochs: int | float
    examples: int | None
    batch_size: int
    schedule: str
    options: dict[str, Value] = field(default_factory=dict)
    loop: bool
    tune: tuple[str, ...]
    trials: int
    seeds: int
    seed: int
    compiled: bool
    device: str
    left_out: tuple[str, ...]
    entries: tuple[PlannedEntry, ...]
    crossed: bool
    tested: bool
    mode: ExecutionMode

    @property
    def tunes_learning_rate_only(self) -> bool:
        """True if the learning rate is the only tuned hyperparameter."""
        return self.tune == ("lr",)
