"""Committed races of the suite, as the findings about tuning budgets and rankings read them."""

from collections import Counter
from collections.abc import Mapping
from functools import cache

import numpy as np

from gradprix.race import RaceRecord
from gradprix.race.run_records import TuningRun
from suite_records import suite_records

FEWEST = 5  # minimum number of tasks for a statement about tasks in general
MOST = 5.0  # limit to which a difference on one task is clipped, in margins, so that no single task decides
Points = list[tuple[float, float]]
"""Validation loss and metric of runs. The metric of a diverged run is the task's chance level."""


@cache
def races() -> Mapping[str, RaceRecord]:
    """Return the records of the races, by name of the task."""
    return suite_records()


def direction(record: RaceRecord) -> int:
    """Return 1 if a higher metric is better, else -1."""
    return 1 if record.plan.metric.higher_is_better else -1


def margin(record: RaceRecord) -> float:
    """Return the smallest difference that matters, in the metric's units."""
    return record.plan.metric.least(record.ranking[0].final.mean)


def clipped(difference: float) -> float:
    """Return a difference in margins, clipped at `MOST`."""
    return float(np.clip(difference, -MOST, MOST))


def search_seeds(record: RaceRecord) -> list[int]:
    """Return the tuning seeds of a race on which every entry ran a whole search; the others only replicate points."""
    runs = Counter(run.seed for run in next(iter(record.tuning_runs.values())))
    return [seed for seed, count in runs.items() if count == max(runs.values())]


def points_on_seed(record: RaceRecord, name: str, seed: int) -> dict[float, tuple[float, float]]:
    """Return loss and metric of an entry's tuning runs with one seed, by learning rate, in the order of the search."""
    runs = [run for run in record.tuning_runs[name] if run.seed == seed]
    return {run.learning_rate: (run.loss, _scored(record, run)) for run in runs}


def _scored(record: RaceRecord, run: TuningRun) -> float:
    return run.metric if run.is_scored else record.plan.chance_level
