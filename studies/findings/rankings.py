"""Findings about rankings: no optimizer dominates, and a single seed often names the wrong winner."""

from collections.abc import Iterable, Mapping
from functools import cache
from itertools import combinations

import numpy as np

from gradprix.claims.decisions import Decision, all_of, is_above, is_below
from gradprix.claims.estimates import Measured, exact, mean
from gradprix.claims.registry import Quantities
from gradprix.race import RaceRecord
from gradprix.show.figure import Chart
from gradprix.stats.verdict import Verdict, judge

from .figures import interval_rows
from .races_of_the_suite import FEWEST, direction, margin, races
from .registry import experiment

BEATEN = 3  # tasks on which the best single choice must be beaten
TOP = 5  # number of entries with the best means whose pairs are compared by single seeds
OFTEN, RARELY = 0.1, 0.05
"""Shares of comparisons that name the wrong winner: from the first on they are often wrong, up to the second rarely."""
STANDARD_ERRORS = 2.0


@cache
def verdicts() -> Mapping[str, Verdict]:
    """Return the verdict on each task, with a family-wise error rate of 5 % over all pairs of all tasks."""
    records = races()
    return {name: _judge(record, len(records)) for name, record in records.items()}


def _judge(record: RaceRecord, races_in_all: int) -> Verdict:
    metric, names = record.plan.metric, [entry.name for entry in record.entries]
    return judge(
        {entry.name: entry.final.values for entry in record.entries},
        higher_is_better=metric.higher_is_better,
        margin=metric.margin,
        relative=metric.relative,
        level=record.verdict.interim_analyses[-1][1] / races_in_all,
        parts=record.parts,
        tuning=dict.fromkeys(names, record.verdict.tuning_deviation or 0.0),
    )


def decide_domination(m: Quantities) -> Decision:
    """Return the verdict from the tasks on which the best single choice is beaten, and its largest regret."""
    if m["tasks"].effect < FEWEST:
        return all_of(None)
    return all_of(True if m["beaten"].effect >= BEATEN else False if m["farthest"].effect <= 1 else None)


@experiment("no-optimizer-dominates", decide=decide_domination)
def measure_domination(quick: bool) -> Quantities:
    """Count the tasks on which the optimizer with the smallest mean regret is beaten significantly."""
    records = races()
    everywhere = sorted(set.intersection(*({entry.name for entry in record.entries} for record in records.values())))
    regrets = {name: [_regret(record, name) for record in records.values()] for name in everywhere}
    best = min(regrets, key=lambda name: np.mean(regrets[name]))
    wins = {
        task: [pair.a for pair in verdict.pairs if pair.b == best and pair.words == "wins"]
        for task, verdict in verdicts().items()
    }
    lost = [task for task, winners in wins.items() if winners]
    winners = sorted({name for task in lost for name in wins[task]})
    return {
        "beaten": exact(len(lost), len(records)),
        "farthest": exact(max(regrets[best]), len(records)),
        "optimizers": exact(len(everywhere)),
        "tasks": exact(len(records)),
        "best": best,
        "where": f" ({', '.join(lost)}), by {', '.join(winners)}" if lost else "",
        "names": list(records),
    }


def _regret(record: RaceRecord, name: str) -> float:
    """Return the distance of an entry's mean from the best mean, in margins."""
    means = {entry.name: entry.final.mean for entry in record.entries}
    return abs(means[name] - means[record.ranking[0].name]) / margin(record)


def values(record: RaceRecord, top: int | None = None) -> dict[str, np.ndarray]:
    """Return the final values of each entry, best mean first, with the sign such that larger is better.

    Args:
        record: record of a race.
        top: number of entries; None for all.
    """
    return {entry.name: direction(record) * np.array(entry.final.values) for entry in record.ranking[:top]}


def wrong_orders(difference: np.ndarray) -> float:
    """Return the share of seeds on which a difference has another sign than its mean over all other seeds.

    Equal values count as half.

    Args:
        difference: paired differences of two entries, `[seeds]`.
    """
    others = (difference.sum() - difference) / (len(difference) - 1)
    return float((1 - np.sign(difference) * np.sign(others)).mean() / 2)


def pair_differences(table: Mapping[str, np.ndarray]) -> Iterable[np.ndarray]:
    """Yield the paired differences of all pairs of entries."""
    return (a - b for a, b in combinations(table.values(), 2))


def decide_single_seeds(m: Quantities) -> Decision:
    """Return the verdict from the share of wrong comparisons among the best entries."""
    return all_of(is_above(m["top"], OFTEN) if m["tasks"].effect >= FEWEST else None)


@experiment("one-seed-names-the-wrong-winner", decide=decide_single_seeds)
def measure_single_seeds(quick: bool) -> Quantities:
    """Measure how often one seed contradicts the order of the means, over the tasks of the suite."""
    top, significant = [], []
    for name, record in races().items():
        top.append(np.mean([wrong_orders(d) for d in pair_differences(values(record, TOP))]))
        table, pairs = values(record), verdicts()[name].pairs
        significant += [wrong_orders(table[p.a] - table[p.b]) for p in pairs if p.words in ("wins", "slightly ahead")]
    return {
        "top": mean(top),
        "significant": exact(float(np.mean(significant)) if significant else 0.0, len(significant)),
        "tasks": exact(len(top)),
        "names": list(races()),
    }


def reversals(record: RaceRecord) -> dict[bool, list[bool]]:
    """Compare each pair of entries on the first and on the second half of the seeds.

    Returns:
        Whether the order of the means in the second half is another than in the first, for pairs whose difference in
        the first half is below two standard errors (True) and for those above (False).
    """
    reversed_by_size: dict[bool, list[bool]] = {True: [], False: []}
    for difference in pair_differences(values(record)):
        first, second = np.array_split(difference, 2)
        error = first.std(ddof=1) / np.sqrt(len(first))
        if first.mean() != 0 and second.mean() != 0:
            is_small = bool(abs(first.mean()) < STANDARD_ERRORS * error)
            reversed_by_size[is_small].append(bool(np.sign(first.mean()) != np.sign(second.mean())))
    return reversed_by_size


def decide_reversals(m: Quantities) -> Decision:
    """Return the verdict from the shares of reversed orders."""
    if m["tasks"].effect < FEWEST:
        return all_of(None)
    return all_of(is_above(m["small"], OFTEN), is_below(m["large"], RARELY))


def draw_reversals(m: Quantities) -> Chart:
    """Draw the shares of reversed orders below and above two standard errors."""
    rows = {"difference < 2 SE": m["small"], "difference > 2 SE": m["large"]}
    return interval_rows("differences-below-two-standard-errors-are-noise", "share of reversed orders", rows)


@experiment("differences-below-two-standard-errors-are-noise", decide_reversals, draw=draw_reversals)
def measure_reversals(quick: bool) -> Quantities:
    """Measure how often differences below and above two standard errors change their sign with other seeds."""
    each = [reversals(record) for record in races().values()]
    shares: dict[str, Measured] = {
        name: mean([np.mean(by_size[is_small]) for by_size in each if by_size[is_small]])
        for name, is_small in (("small", True), ("large", False))
    }
    below, above = (sum(len(by_size[is_small]) for by_size in each) for is_small in (True, False))
    return {**shares, "below": exact(below), "above": exact(above), "tasks": exact(len(each)), "names": list(races())}
