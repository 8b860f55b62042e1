"""Suites: races of the same optimizers on several tasks, and the regret of a single choice for all tasks."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from gradprix.executors.executor import Executor
from gradprix.integrations.loggers import make_loggers
from gradprix.stats.recommendation import too_variable
from gradprix.stats.verdict import PairVerdict, judge
from gradprix.tasks import ALL, UnknownNameError
from gradprix.text.live_race import format_phase

from .config import make_plan
from .entry import Entry
from .live_files import LiveFiles, LiveProgress, Watch
from .plan import Plan
from .protocol import run
from .record import RaceRecord
from .suite_record import PairSummary, Profile, ProfileCurve, RankReversal, Regret, SuiteSummary, TaskSummary

ENTRIES_OF_A_SUITE = (
    "minibatch",
    "momentum",
    "nesterov",
    "adagrad",
    "rmsprop",
    "adadelta",
    "adam",
    "adamw",
    "adamax",
    "nadam",
)
"""Names of the default entries of a suite: classic optimizers at one batch size."""
MODERN_ENTRIES = (
    "muon",
    "lion",
    "adopt",
    "ademamix",
    "schedule_free_adamw",
    "ema(adamw)",
    "prodigy",
    "soap",
)
"""Names of the newer entries of the published suite (`studies/suite.py`), which it races beside the classic ones."""
SLOW_TASKS = {"soap": ("translate", "charlm", "generate", "generate-vae")}
"""Entries that the published suite leaves out of some tasks, because a step takes too long there, with these tasks."""
BOOTSTRAP_SAMPLES = 2_000
"""Number of bootstrap samples of the tasks."""
TAUS = tuple(round(0.1 * i, 1) for i in range(101))
"""Regrets, in margins, at which performance profiles are evaluated."""


def suite_plans(
    tasks: str | Iterable[str] | None = None, optimizers: str | Iterable[str | Entry] | None = None, **budget: Any
) -> list[Plan]:
    """Return the plans of a suite, one for each task.

    Args:
        tasks: names of built-in tasks, as a list or separated by commas. Default: all built-in tasks.
        optimizers: entries of each race, as in `race`. Default: `ENTRIES_OF_A_SUITE`.
        budget: `preset`, `trials`, `seeds` and `seed`, as in `race`.

    Raises:
        UnknownNameError: if a task is not built in.
        ValueError: if a value is out of range; see `race`.
    """
    names = list(ALL) if tasks is None else tasks.split(",") if isinstance(tasks, str) else list(tasks)
    for name in names:
        if name not in ALL:
            raise UnknownNameError("task", name, ALL)
    return [make_plan(name, optimizers or ENTRIES_OF_A_SUITE, **budget) for name in names]


def published_entries(task: str) -> list[str]:
    """Return the names of the entries of the published suite on a task: `ENTRIES_OF_A_SUITE`, then `MODERN_ENTRIES`.

    Example:
        >>> [entry for entry in published_entries("digits") if entry not in published_entries("charlm")]
        ['soap']
    """
    return [name for name in (*ENTRIES_OF_A_SUITE, *MODERN_ENTRIES) if task not in SLOW_TASKS.get(name, ())]


def suite(
    plans: Sequence[Plan],
    out: Path,
    engine: Executor,
    watch: Watch = lambda *_: None,
    log: Sequence[str] = (),
) -> SuiteSummary:
    """Run the races of a suite, each saved in a folder of its own, and summarize the results.

    Finished runs are reused. Races run one after the other. On a cluster they run concurrently, so that no worker is
    idle at the end of a race.

    Args:
        plans: plan of each race.
        out: parent folder of the folders of the races.
        engine: executor of the training runs.
        watch: progress callback.
        log: names of the loggers of each race, as in `race`.

    Raises:
        ValueError: if a race fails; see `run`.
    """
    whole = LiveFiles(None)
    finished, total = dict.fromkeys((plan.task.name for plan in plans), 0.0), sum(plan.runs for plan in plans)

    def race(plan: Plan) -> RaceRecord:
        name = plan.task.name

        def report(progress: LiveProgress) -> None:
            finished[name] = progress.finished_runs
            done = sum(finished.values())
            watch(whole.update(f"{name}: {format_phase(progress.phase)}", done, total) if done else progress)

        return run(plan, out / name, engine, report, make_loggers(log)).record

    for plan in plans:
        assert plan.task.fingerprint  # before threads start, because it uses torch's global generator
    return summed_up(dict(zip(finished, engine.map_concurrently(race, plans), strict=True)))


def summed_up(records: Mapping[str, RaceRecord]) -> SuiteSummary:
    """Summarize races with the same entries on several tasks.

    The *regret* of an entry is the difference of its mean from the best mean. It is measured in margins, the smallest
    difference that matters on the task, so that tasks with different metrics have a common scale.

    Args:
        records: record of each race, by name of the task.

    Raises:
        ValueError: if the races have different entries.
    """
    entries = [entry.name for entry in next(iter(records.values())).entries]
    for name, record in records.items():
        if [entry.name for entry in record.entries] != entries:
            raise ValueError(
                f"the race on {name} has other entries than the first. Race the same entries on all tasks."
            )
    tasks = {name: _summarize_race(record) for name, record in records.items()}
    table = np.array([[task.regrets[entry] for task in tasks.values()] for entry in entries])
    regrets = {entry: Regret(float(row.mean()), float(row.max())) for entry, row in zip(entries, table, strict=True)}
    return SuiteSummary(
        entries=tuple(sorted(entries, key=lambda entry: regrets[entry].mean)),
        tasks=tasks,
        profile=profile(entries, table),
        regrets=regrets,
        reversals=rank_reversals(records),
        defaults={entry: _defaults(records, entry) for entry in entries},
    )


def _summarize_race(record: RaceRecord) -> TaskSummary:
    """Summarize the race on one task."""
    metric, means = record.plan.metric, record.means
    best = record.ranking[0].name
    margin = metric.least(means[best])
    leaders = [entry.name for entry in record.entries if entry.is_leader]
    variable = too_variable(means, leaders, metric.higher_is_better)
    return TaskSummary(
        metric=metric,
        chance_level=record.plan.chance_level,
        about=record.about,
        margin=margin,
        means=means,
        leaders=tuple(name for name in leaders if name not in variable),
        too_variable=tuple(variable),
        recommended=record.verdict.recommended,
        pairs=tuple(
            PairSummary(a=pair.a, b=pair.b, difference=pair.difference, ci95=pair.ci95, verdict=pair.verdict)
            for pair in record.verdict.pairs
        ),
        regrets={name: abs(means[best] - mean) / margin for name, mean in means.items()},
        learning_rates={entry.name: entry.tuned["lr"] for entry in record.entries if "lr" in entry.tuned},
        tolerances={entry.name: entry.tolerance_decades for entry in record.entries},
        at_edge=tuple(entry.name for entry in record.entries if "lr" in entry.tuning.edges),
        diverged={entry.name: entry.final.diverged for entry in record.entries},
        trials=record.budget.trials,
        seeds=record.budget.seeds,
        seconds=record.cost.seconds,
    )


def profile(entries: Sequence[str], regrets: np.ndarray[Any, Any]) -> Profile:
    """Compute performance profiles: the fraction of tasks on which the regret of an entry is at most each of `TAUS`.

    Args:
        entries: names of the entries.
        regrets: regret of each entry on each task in margins, `[entries, tasks]`.

    Returns:
        The profile of each entry, with a 95 % bootstrap confidence band over tasks.
    """
    within = regrets[:, :, None] <= np.array(TAUS)  # [entries, tasks, taus]
    drawn = np.random.default_rng(0).integers(regrets.shape[1], size=(BOOTSTRAP_SAMPLES, regrets.shape[1]))
    bands = np.quantile(within[:, drawn].mean(2), (0.025, 0.975), axis=1)  # [2, entries, taus]
    each = zip(entries, within.mean(1).tolist(), *bands.tolist(), strict=True)
    return Profile(TAUS, {entry: ProfileCurve(*map(tuple, curve)) for entry, *curve in each})


def rank_reversals(records: Mapping[str, RaceRecord]) -> tuple[RankReversal, ...]:
    """Return the rank reversals: pairs of entries that win against each other on different tasks.

    The family-wise error rate of 5 % is divided equally among the races.
    """
    won: dict[tuple[str, str], list[str]] = {}
    for name, record in records.items():
        metric = record.plan.metric
        verdict = judge(
            {entry.name: entry.final.values for entry in record.entries},
            higher_is_better=metric.higher_is_better,
            margin=metric.margin,
            relative=metric.relative,
            level=record.verdict.interim_analyses[-1][1] / len(records),
            parts=record.parts,
        )
        for pair in verdict.pairs:
            if pair.verdict is PairVerdict.WINS:
                won.setdefault((pair.a, pair.b), []).append(name)
    names = dict.fromkeys(name for pair in won for name in pair)
    return tuple(
        RankReversal(a, b, tuple(won[a, b]), tuple(won[b, a]))
        for a, b in combinations(names, 2)
        if (a, b) in won and (b, a) in won
    )


def _defaults(records: Mapping[str, RaceRecord], entry: str) -> dict[str, bool]:
    """Test if the default settings of an entry are within the margin of its tuned settings, by the validation metric.

    Returns:
        The answer for each task. Tasks on which the default settings were not tried are left out.
    """
    within_margin = {}
    for name, record in records.items():
        default, tuned = record.efficiency.default[entry], record.efficiency.tuned[entry]
        metric = record.plan.metric
        sign = 1 if metric.higher_is_better else -1
        if default is not None:
            within_margin[name] = bool(sign * (tuned - default) <= metric.least(tuned))
    return within_margin
