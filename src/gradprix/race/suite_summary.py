"""Summary of the races of a suite: regrets, performance profiles, rank reversals."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from gradprix.stats.recommendation import Candidate, near_optimal, too_variable
from gradprix.stats.verdict import Pair, PairVerdict, judge

from .record import RaceRecord
from .suite_record import PairSummary, Profile, ProfileCurve, RankReversal, SuiteSummary, TaskSummary
from .suite_selections import leave_tasks_out, regrets_of, select, summarize_regrets

BOOTSTRAP_SAMPLES = 2_000
"""Number of bootstrap samples of the tasks."""
TAUS = tuple(round(0.1 * i, 1) for i in range(101))
"""Regrets, in margins, at which performance profiles are evaluated."""


def summed_up(records: Mapping[str, RaceRecord]) -> SuiteSummary:
    """Summarize races on several tasks.

    The *regret* of an entry is the difference of its mean from the best mean. It is measured in margins, the smallest
    difference that matters on the task, so that tasks with different metrics have a common scale. An entry may be
    missing on some tasks: its regrets are those of the others, and it is no single choice for all tasks.

    Args:
        records: record of each race, by name of the task.

    Raises:
        ValueError: if no entry raced on all tasks.
    """
    tasks = {name: _summarize_race(record) for name, record in records.items()}
    entries = list(dict.fromkeys(name for task in tasks.values() for name in task.means))
    by_task = {entry: regrets_of(entry, tasks) for entry in entries}
    regrets = {entry: summarize_regrets(each) for entry, each in by_task.items()}
    return SuiteSummary(
        entries=tuple(sorted(entries, key=lambda name: (regrets[name].tasks < len(tasks), regrets[name].mean))),
        tasks=tasks,
        profile=profile({entry: list(each.values()) for entry, each in by_task.items()}),
        regrets=regrets,
        recommendation=summarize_regrets({name: task.regrets[task.recommended] for name, task in tasks.items()}),
        selections=select(tasks),
        left_out=leave_tasks_out(tasks),
        reversals=rank_reversals(records),
        defaults={entry: _defaults(records, entry) for entry in entries},
    )


def _summarize_race(record: RaceRecord) -> TaskSummary:
    """Summarize the race on one task."""
    metric, means, verdict = record.plan.metric, record.means, record.verdict
    best = record.ranking[0].name
    margin = metric.least(means[best])
    leaders = [entry.name for entry in record.entries if entry.is_leader]
    variable = too_variable(means, leaders, metric.higher_is_better)
    regrets = {name: abs(means[best] - mean) / margin for name, mean in means.items()}
    bounds = {entry.name: entry.bound / margin for entry in record.entries if entry.bound is not None}
    return TaskSummary(
        metric=metric,
        chance_level=record.plan.chance_level,
        about=record.about,
        margin=margin,
        means=means,
        leaders=tuple(name for name in leaders if name not in variable),
        too_variable=tuple(variable),
        recommended=verdict.recommended,
        candidates=_candidates(record, regrets, bounds),
        bounds=bounds,
        level=verdict.level,
        error_rate=sum(level for _, level in verdict.interim_analyses),
        tuning_deviation=None if verdict.tuning_deviation is None else verdict.tuning_deviation / margin,
        pairs=tuple(
            PairSummary(a=pair.a, b=pair.b, difference=pair.difference, ci95=pair.ci95, verdict=pair.verdict)
            for pair in verdict.pairs
        ),
        regrets=regrets,
        learning_rates={entry.name: entry.tuned["lr"] for entry in record.entries if "lr" in entry.tuned},
        tolerances={entry.name: entry.tolerance_decades for entry in record.entries},
        at_edge=tuple(entry.name for entry in record.entries if "lr" in entry.edges),
        diverged={entry.name: entry.final.diverged for entry in record.entries},
        trials=record.budget.trials,
        seeds=record.budget.seeds,
        seconds=record.cost.seconds,
    )


def _candidates(record: RaceRecord, regrets: Mapping[str, float], bounds: Mapping[str, float]) -> tuple[str, ...]:
    """Return the entries from which the recommended one was chosen, best mean first; see `recommend`.

    Args:
        record: record of a race.
        regrets: difference of each entry's mean from the best mean, in margins.
        bounds: upper bound of each entry's regret, in margins.
    """
    candidates = {
        entry.name: Candidate(
            shortfall=regrets[entry.name],
            bound=bounds.get(entry.name, np.inf),
            diverged=entry.final.diverged,
            tolerance_decades=entry.tolerance_decades,
            step_seconds=None,
        )
        for entry in record.ranking
    }
    names = near_optimal(candidates, margin=1.0)
    return tuple(names) if record.verdict.recommended in names else ()


def profile(regrets: Mapping[str, Sequence[float]]) -> Profile:
    """Compute performance profiles: the fraction of tasks on which the regret of an entry is at most each of `TAUS`.

    Args:
        regrets: regrets of each entry in margins, one for each task on which it raced.

    Returns:
        The profile of each entry, with a 95 % bootstrap confidence band over tasks.
    """
    return Profile(TAUS, {entry: _profile_curve(np.array(each)) for entry, each in regrets.items()})


def _profile_curve(regrets: np.ndarray[Any, Any]) -> ProfileCurve:
    """Return the profile of an entry with these regrets, `[tasks]`."""
    within = regrets[:, None] <= np.array(TAUS)  # [tasks, taus]
    drawn = np.random.default_rng(0).integers(len(regrets), size=(BOOTSTRAP_SAMPLES, len(regrets)))
    low, high = np.quantile(within[drawn].mean(1), (0.025, 0.975), axis=0).tolist()
    return ProfileCurve(tuple(within.mean(0).tolist()), tuple(low), tuple(high))


def rank_reversals(records: Mapping[str, RaceRecord]) -> tuple[RankReversal, ...]:
    """Return the rank reversals: pairs of entries that win against each other on different tasks.

    The family-wise error rate of 5 % is divided equally among the races. Like the comparisons of a race, these are
    about optimizers as the protocol tunes them: they allow for the tuning variance.
    """
    won: dict[tuple[str, str], dict[str, float]] = {}
    for name, record in records.items():
        for pair in _wins(record, len(records)):
            margin = record.plan.metric.least(record.means[pair.a])
            won.setdefault((pair.a, pair.b), {})[name] = pair.difference / margin
    names = dict.fromkeys(name for pair in won for name in pair)
    return tuple(
        RankReversal(a, b, tuple(won[a, b]), tuple(won[b, a]), _weak_task(won[a, b], won[b, a]))
        for a, b in combinations(names, 2)
        if (a, b) in won and (b, a) in won
    )


def _wins(record: RaceRecord, races: int) -> list[Pair]:
    """Return the wins of a race at its part of the error rate of several races."""
    metric, deviation = record.plan.metric, record.verdict.tuning_deviation
    values = {entry.name: entry.final.values for entry in record.entries}
    verdict = judge(
        values,
        higher_is_better=metric.higher_is_better,
        margin=metric.margin,
        relative=metric.relative,
        level=record.verdict.interim_analyses[-1][1] / races,
        parts=record.parts,
        tuning=None if deviation is None else dict.fromkeys(values, deviation),
    )
    return [pair for pair in verdict.pairs if pair.verdict is PairVerdict.WINS]


def _weak_task(one: Mapping[str, float], other: Mapping[str, float]) -> str | None:
    """Return the task on which the weaker side of a reversal rests alone; None if both sides rest on several tasks.

    Args:
        one: differences by which one entry wins, in margins, by name of the task.
        other: those of the other entry.
    """
    weaker = min(one, other, key=lambda side: (len(side), max(side.values())))
    return next(iter(weaker)) if len(weaker) == 1 else None


def _defaults(records: Mapping[str, RaceRecord], entry: str) -> dict[str, bool]:
    """Test if the default settings of an entry are within the margin of its tuned settings, by the validation metric.

    Returns:
        The answer for each task. Tasks on which the entry did not race, or its default settings were not tried, are
        left out.
    """
    within_margin = {}
    for name, record in records.items():
        default, tuned = record.efficiency.default.get(entry), record.efficiency.tuned.get(entry)
        metric = record.plan.metric
        sign = 1 if metric.higher_is_better else -1
        if default is not None and tuned is not None:
            within_margin[name] = bool(sign * (tuned - default) <= metric.least(tuned))
    return within_margin
