"""Ranks of optimizers with a quarter of the budget and at the end, from the races of the published suite."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from scipy.stats import kendalltau

from gradprix.claims import Measured
from gradprix.claims.decisions import Decision, all_of, is_above, is_below
from gradprix.claims.estimates import mean
from gradprix.claims.registry import Quantities
from gradprix.race import RaceRecord
from gradprix.show.figure import Chart
from gradprix.stats.verdict import PairVerdict
from suite_records import suite_records

from .figures import interval_rows
from .races_of_the_suite import FEWEST
from .registry import experiment

LITTLE = 0.5
Ranked = Mapping[str, Sequence[float]]
"""Metric of each run, by name of the optimizer."""


def decide(m: Quantities) -> Decision:
    """Return the verdict from the correlation with a quarter of the examples and its distance from the ceiling."""
    is_low, exceeds_noise = is_below(m["quarter"], LITTLE), is_above(m["lost"], 0)
    if m["tasks"] < FEWEST or (is_low and not exceeds_noise):
        return "inconclusive"  # with the second, the ranks at the end are as uncertain
    return all_of(is_low)


def draw(m: Quantities) -> Chart:
    """Draw the mean correlations and that of each task."""
    rows = {"quarter, mean": m["quarter"], "ceiling, mean": m["ceiling"], "same run, mean": m["checkpoint"]}
    rows |= {f"{task}, quarter": Measured("", value, (value, value), 1) for task, value in m["tasks_quarter"].items()}
    return interval_rows(
        "early-ranks-say-little",
        "rank correlation with the end (Kendall's τ; dashed: limit of the decision rule)",
        rows,
        LITTLE,
    )


@experiment("early-ranks-say-little", decide, draw=draw)
def measure(quick: bool) -> Quantities:
    """Return the rank correlations, averaged over the tasks of the suite."""
    records = {name: record for name, record in suite_records().items() if record.budget_sensitivity is not None}
    rows = {name: correlate(record) for name, record in records.items()}
    names = dict.fromkeys(key for row in rows.values() for key in row)
    columns = {key: [row[key] for row in rows.values() if key in row] for key in names}
    return {
        "quarter": bounded_mean(columns["quarter"], -1),
        "lost": mean(np.subtract(columns["ceiling"], columns["quarter"])),
        "ceiling": bounded_mean(columns["ceiling"], -1),
        "reversed": bounded_mean(columns["reversed"], 0),
        "reversed_wins": bounded_mean(columns["reversed_wins"], 0),
        "checkpoint": bounded_mean(columns["checkpoint"], -1),
        "tasks": len(rows),
        "tasks_quarter": {name: round(row["quarter"], 3) for name, row in rows.items()},
    }


def bounded_mean(values: Sequence[float], low: float) -> Measured:
    """Return the mean of numbers between `low` and 1, with an interval within these bounds."""
    m = mean(values)
    return replace(m, ci95=(max(m.ci95[0], low), min(m.ci95[1], 1.0)))


def correlate(record: RaceRecord) -> dict[str, float]:
    """Return the rank correlations of one race and the shares of pairs that reverse."""
    assert record.budget_sensitivity is not None
    early: Ranked = record.budget_sensitivity.values
    final: Ranked = {entry.name: entry.final.values for entry in record.entries if entry.name in early}
    flips = {pair: is_reversed(early, final, *pair) for pair in combinations(final, 2)}
    wins = [pair for pair in flips if record.pair(*pair).verdict in (PairVerdict.WINS, PairVerdict.SLIGHTLY_AHEAD)]
    correlations = {
        "quarter": rank_correlation(early, final),
        "ceiling": split_correlation(final, record.budget_sensitivity.seeds),
        "reversed": float(np.mean(list(flips.values()))),
    }
    if wins:
        correlations["reversed_wins"] = float(np.mean([flips[pair] for pair in wins]))
    if (checkpoint := checkpoint_correlation(record)) is not None:
        correlations["checkpoint"] = checkpoint
    return correlations


def is_reversed(early: Ranked, final: Ranked, a: str, b: str) -> bool:
    """Return True if the means of two optimizers have the opposite order with a quarter of the examples."""
    return (np.mean(early[a]) - np.mean(early[b])) * (np.mean(final[a]) - np.mean(final[b])) < 0


def rank_correlation(one: Ranked, other: Ranked) -> float:
    """Return Kendall's τ-b of the means of the same optimizers in two groups of runs."""
    return float(kendalltau([np.mean(one[name]) for name in other], [np.mean(other[name]) for name in other]).statistic)


def split_correlation(final: Ranked, group: int) -> float:
    """Return the correlation between the ranks of a group of seeds and of all others, averaged over disjoint groups."""
    seeds = min(len(values) for values in final.values())
    correlations = []
    for first in range(0, seeds - group + 1, group):
        inside = np.isin(np.arange(seeds), np.arange(first, first + group))
        values = {name: np.array(each[:seeds]) for name, each in final.items()}
        one, other = ({name: each[mask] for name, each in values.items()} for mask in (inside, ~inside))
        correlations.append(rank_correlation(one, other))
    return float(np.mean(correlations))


def checkpoint_correlation(record: RaceRecord) -> float | None:
    """Return the correlation between the validation metrics at a quarter of the runs and at their end.

    It is None if no epoch ends at a quarter of the run.
    """
    curves = {name: np.array(each.valid_metric) for name, each in record.curves.items()}
    curves = {name: each for name, each in curves.items() if np.isfinite(each).all()}  # without diverged runs
    epochs = min(each.shape[1] for each in curves.values())
    if epochs < 4:
        return None
    early = {name: each[:, round(epochs / 4) - 1] for name, each in curves.items()}
    return rank_correlation(early, {name: each[:, -1] for name, each in curves.items()})
