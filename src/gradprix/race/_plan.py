"""What a race will do, decided before it starts."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gradprix import __version__
from gradprix.tasks import Task

from ._entry import Entry
from ._trial import Trial
from ._tune import RESEEDED, rate, rungs
from ._verdict import detectable

TRIALS = 19
SEEDS = 16
MOST = 300
"""Trials or seeds of one entry: a race's seeds are numbered so that up to this many never meet."""
FEWEST_SEEDS = 6
"""With n seeds no p-value is below 2^(1-n), so fewer than six can never tell two entries apart at 5 %."""


@dataclass(frozen=True)
class Plan:
    """A race before it is run.

    Args:
        task: the problem, with the budget, batch size, schedule and margin of this race.
        entries: what races.
        trials: tuning trials an entry.
        seeds: final seeds, the same for every entry.
        seed: sets this race's seeds apart from those of a race with another number.
        compiled: whether the stacked networks are compiled.
    """

    task: Task
    entries: tuple[Entry, ...]
    trials: int = TRIALS
    seeds: int = SEEDS
    seed: int = 0
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(
                f"trials = {self.trials}: each optimizer needs 1 tuning trial or more (19 is the protocol)."
            )
        if self.seeds < FEWEST_SEEDS:
            raise ValueError(
                f"seeds = {self.seeds}: with fewer than {FEWEST_SEEDS} seeds no difference can ever be told "
                "at 5 % (the smallest p-value is 2^(1 - seeds)). 16 is the protocol."
            )
        if max(self.trials, self.seeds) > MOST:
            raise ValueError(f"trials = {self.trials}, seeds = {self.seeds}: there are {MOST} of each at most.")
        if not 0 <= self.seed < 100_000:
            raise ValueError(f"seed = {self.seed}: it must be from 0 to 99999.")
        if not self.task.metric.margin >= 0:
            raise ValueError(f"margin = {self.task.metric.margin}: it must be 0 or more.")

    def tuning_trial(self, entry: Entry, rung: int, seed: int) -> Trial:
        """A tuning run of an entry: its own seeds, never those of the final."""
        number = 10_000 * self.seed + 1_000 + MOST // RESEEDED * entry.luck + seed
        return self._trial(entry, rate(rung, entry.offset), number, False)

    def final_trial(self, entry: Entry, lr: float, seed: int) -> Trial:
        """A final run of an entry at its tuned rate, on a seed that no tuning has seen."""
        return self._trial(entry, lr, 10_000 * self.seed + 1 + seed, True)

    def _trial(self, entry: Entry, lr: float, seed: int, judged: bool) -> Trial:
        task = self.task
        return Trial(entry.rule, entry.values(lr), seed, self.batch_size(entry), task.epochs, task.schedule, judged)

    def batch_size(self, entry: Entry) -> int:
        """Examples a step of an entry; 0 for all."""
        return self.task.batch_size if entry.batch_size is None else entry.batch_size

    @property
    def examples(self) -> int:
        """Training examples that each run sees."""
        return self.task.epochs * len(self.task.loaded.split(0).train)

    def updates(self, entry: Entry) -> int:
        """Steps that each run of an entry takes."""
        count = len(self.task.loaded.split(0).train)
        return self.task.epochs * -(-count // (self.batch_size(entry) or count))

    @property
    def runs(self) -> int:
        """Networks trained in all."""
        return len(self.entries) * (self.trials + self.seeds)

    @property
    def smallest_difference(self) -> float:
        """What the race can tell four times in five, in standard deviations of a paired difference."""
        return detectable(len(self.entries), self.seeds)

    def describe(self) -> dict[str, Any]:
        """The plan as JSON: whatever a number of the race depends on."""
        task = self.task
        return {
            "task": task.name,
            "fingerprint": task.fingerprint,
            "metric": {k: v for k, v in vars(task.metric).items() if k != "score"},
            "baseline": task.baseline,
            "epochs": task.epochs,
            "examples": self.examples,
            "batch_size": task.batch_size,
            "schedule": task.schedule,
            "trials": self.trials,
            "seeds": self.seeds,
            "seed": self.seed,
            "compiled": self.compiled,
            "versions": {"gradprix": __version__, "torch": str(torch.__version__), "numpy": np.__version__},
            "entries": [self._describe(entry) for entry in self.entries],
        }

    def _describe(self, entry: Entry) -> Mapping[str, Any]:
        low, high = (rate(rung, entry.offset) for rung in rungs(entry.space["lr"]))
        trial = self.tuning_trial(entry, 0, 0)
        return {
            "name": entry.name,
            "optimizer": entry.optimizer,
            "rule": entry.rule.name,
            **{key: trial.identity[key] for key in ("equations", "class", "code", "version") if key in trial.identity},
            "fixed": {name: _plain(value) for name, value in entry.fixed.items()},
            "space": {"lr": [low, high]},
            "batch_size": self.batch_size(entry),
            "updates": self.updates(entry),
            "offset": entry.offset,
            "luck": entry.luck,
        }

    @property
    def key(self) -> str:
        """A hash of the plan."""
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """A value as JSON keeps it."""
    return value if isinstance(value, int | float | str | None) else repr(value)
