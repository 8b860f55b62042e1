"""Comparison of several finished races: ranks, rank reversals, and changes of the entries' means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from scipy.special import stdtrit

from gradprix.utils.wording import format_list

from .record import RaceRecord
from .record_json import to_json
from .value_comparison import compare_values


@dataclass(frozen=True)
class RankReversal:
    """Two entries of which one race shows the first ahead, and another race the second.

    In both races the simultaneous confidence interval of the difference excludes zero.

    Args:
        first: name of the entry that is ahead in the race `race`, and behind in the race `other_race`.
        second: name of the other entry.
        race: index of the race.
        other_race: index of the other race.
    """

    first: str
    second: str
    race: int
    other_race: int


@dataclass(frozen=True)
class MeanChange:
    """Difference of an entry's mean between two races on the same task.

    Args:
        difference: mean in the second race minus mean in the first.
        half_width: half-width of the 95 % confidence interval (Welch), which allows for seeds but not for tuning.
    """

    difference: float
    half_width: float

    @property
    def is_clear(self) -> bool:
        """True if the interval excludes zero."""
        return abs(self.difference) > self.half_width


@dataclass(frozen=True)
class RaceComparison:
    """Comparison of races.

    Args:
        names: label of each race.
        records: record of each race.
    """

    names: tuple[str, ...]
    records: tuple[RaceRecord, ...]

    def __post_init__(self) -> None:
        if len(self.records) < 2:
            raise ValueError(f"a comparison needs at least two races, not {len(self.records)}.")

    @property
    def entries(self) -> list[str]:
        """Names of all entries: those of all races first, in the order of the first race's ranking."""
        names = dict.fromkeys(entry.name for record in self.records for entry in record.ranking)
        return sorted(names, key=lambda name: -len(self.races_of(name)))

    def races_of(self, entry: str) -> list[int]:
        """Return the indices of the races in which an entry takes part."""
        return [i for i, record in enumerate(self.records) if entry in record.means]

    def rank(self, race: int, entry: str) -> int | None:
        """Return the rank of an entry in a race by its mean, from 1; None if it does not take part."""
        names = [each.name for each in self.records[race].ranking]
        return names.index(entry) + 1 if entry in names else None

    def rank_change(self, entry: str) -> int | None:
        """Return the number of ranks by which an entry rises from the first race to the last.

        Ranks are counted among the entries of both races: an entry does not rise because others are missing. Returns
        None if it is missing in one of them.
        """
        ends = [[each.name for each in record.ranking] for record in (self.records[0], self.records[-1])]
        first, last = ([name for name in names if all(name in each for each in ends)] for names in ends)
        return first.index(entry) - last.index(entry) if entry in first else None

    @property
    def common_entries(self) -> list[str]:
        """Names of the entries that take part in all races."""
        return [name for name in self.entries if len(self.races_of(name)) == len(self.records)]

    @property
    def common_leaders(self) -> list[str]:
        """Names of the entries that are among the leaders of every race."""
        return [name for name in self.entries if all(name in record.verdict.leaders for record in self.records)]

    @cached_property
    def same_races(self) -> list[list[int]]:
        """Indices of the races, grouped by race: a group has several if a race was given twice."""
        return group_same_races(self.records)

    @property
    def has_same_task(self) -> bool:
        """True if all races have the same task, with the same data and model."""
        return len({(record.task, record.plan.fingerprint) for record in self.records}) == 1

    @property
    def has_same_metric(self) -> bool:
        """True if all races have the same metric."""
        metrics = [record.plan.metric for record in self.records]
        return len({(each.name, each.higher_is_better, each.percent) for each in metrics}) == 1

    @property
    def reversals(self) -> list[RankReversal]:
        """Rank reversals that the intervals of both races support."""
        ahead = [{(p.a, p.b) for p in record.verdict.pairs if p.ci95[0] > 0} for record in self.records]
        return [
            RankReversal(a, b, i, j)
            for i, j in combinations(range(len(self.records)), 2)
            for a, b in sorted(ahead[i])
            if (b, a) in ahead[j]
        ]

    def change(self, entry: str) -> MeanChange | None:
        """Return the change of an entry's mean from the first race to the last.

        Returns None if the scores of the two races are not comparable, if the entry is missing in one of them, or if
        both are the same race.
        """
        races = self.races_of(entry)
        if any({0, len(self.records) - 1} <= set(group) for group in self.same_races):
            return None
        if not (self.has_same_task and self.has_same_metric) or not {0, len(self.records) - 1} <= set(races):
            return None
        first, last = (np.array(record.entry(entry).final.values) for record in (self.records[0], self.records[-1]))
        return _welch(first, last)


def _welch(first: Any, last: Any) -> MeanChange:
    """Return the difference of two means with its interval (Welch 1947, doi:10.1093/biomet/34.1-2.28)."""
    variances = [values.var(ddof=1) / len(values) for values in (first, last)]
    total = sum(variances)
    difference = float(last.mean() - first.mean())
    if not total:
        return MeanChange(difference, 0.0)
    freedom = total**2 / sum(v**2 / (len(x) - 1) for v, x in zip(variances, (first, last), strict=True))
    return MeanChange(difference, float(stdtrit(freedom, 0.975)) * math.sqrt(total))


def is_same_race(one: RaceRecord, other: RaceRecord) -> bool:
    """Return True if two records have the same plan and equal training runs, so that they are no independent evidence.

    Measured times, the diagnosis and replications of runs may differ.
    """
    if one.key != other.key:
        return False
    stated, actual = ([to_json(part) for part in _runs(record)] for record in (one, other))
    return not compare_values(stated, actual)


def _runs(record: RaceRecord) -> tuple[Any, ...]:
    finals = {entry.name: (entry.final.values, entry.losses) for entry in record.entries}
    return finals, record.tuning_runs, record.curves


def group_same_races(records: Sequence[RaceRecord]) -> list[list[int]]:
    """Return the indices of records in groups of one and the same race, in the order of their first records."""
    groups: list[list[int]] = []
    for i, record in enumerate(records):
        same = next((group for group in groups if is_same_race(records[group[0]], record)), None)
        if same is None:
            groups.append([i])
        else:
            same.append(i)
    return groups


def check_distinct(records: Sequence[RaceRecord], names: Sequence[str]) -> None:
    """Check that no race is given twice, because its wins and losses would count twice.

    Args:
        records: records of the races.
        names: name of each, for the message.

    Raises:
        ValueError: if two records are of the same race.
    """
    for first, *others in group_same_races(records):
        if others:
            same = format_list([names[i] for i in (first, *others)])
            raise ValueError(f"{same} are the same race, with equal training runs. Give it once.")


def compare(records: Sequence[RaceRecord], names: Sequence[str] | None = None) -> RaceComparison:
    """Compare two finished races or more.

    Args:
        records: records of the races.
        names: label of each race; the task's name if None. Labels that are equal get a number.

    Raises:
        ValueError: if there are fewer than two races.
    """
    labels = [record.task for record in records] if names is None else list(names)
    unique = [label if labels.count(label) == 1 else f"{label} ({i + 1})" for i, label in enumerate(labels)]
    return RaceComparison(tuple(unique), tuple(records))
