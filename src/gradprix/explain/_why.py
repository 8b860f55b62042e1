"""Explanation of a race's result: the final runs are replayed and measured."""

import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from msgspec.structs import replace

from gradprix.race import Executor, Plan, Result
from gradprix.race.diagnosis_record import Diagnosis, EntryDiagnosis, FamilyContrast, Trait
from gradprix.race.journal import Journal
from gradprix.rules import Rule
from gradprix.tasks import Loop
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.provenance import provenance
from gradprix.training.torch_optimizer_adapter import needs_closure

from .comparisons import compare_levels, find_traits
from .diagnosis import average_updates, compare_measurement, diagnose, report_divergence
from .levels import measure_levels
from .measurement_cost import BUDGET, choose_points, count_cost
from .preconditioner import settles_below
from .replay import ReplayedRun, watch

MEASURED_SEEDS = 8
"""Number of final runs per entry that are measured; confidence intervals are over runs. Comparisons of entries need six
at least."""
MEASURES = 5
"""Version of the measurements. Incrementing it invalidates saved explanations."""


def why(plan: Plan, result: Result, engine: Executor, budget: float = BUDGET) -> Result:
    """Explain the final runs of a race and save the explanation with it.

    The replayed runs are bitwise equal to the original ones, so that the measurements apply to the networks that the
    race evaluated. If a saved explanation used the same plan and at least the same budget, it is returned instead.

    Args:
        plan: plan of the race.
        result: result of the race.
        engine: executor that replays the runs.
        budget: nominal seconds for the measurements. If the counted work exceeds it, runs are measured at fewer steps.
            The result depends on the race and this number alone, not on the speed of the machine.

    Returns:
        The result with a `diagnosis` in its record. For each entry, the diagnosis holds measurements (a number, its
        confidence interval, its ratio to the leaders, and a finding if it is significant) and statistics of the updates
        over training (effective rate, update-to-weight ratio and cosine). It also compares families of entries.

    Raises:
        ValueError: if the race is on a custom training loop, whose networks are not accessible.
    """
    check_explainable(plan)
    saved = result.record.diagnosis
    if saved is not None and saved.identity == (plan.key, MEASURES) and saved.budget >= budget:
        return result
    start_time = time.perf_counter()
    entries, families = _diagnose_runs(plan, result, _replay_runs(plan, result, engine, budget))
    elapsed = round(time.perf_counter() - start_time, 1)
    diagnosis = Diagnosis(
        identity=(plan.key, MEASURES),
        budget=budget,
        runs=min(MEASURED_SEEDS, plan.seeds),
        seconds=elapsed,
        entries=entries,
        families=families,
    )
    record = replace(result.record, diagnosis=diagnosis)
    if result.folder is not None:
        with Journal(result.folder, made=provenance()) as journal:
            journal.diagnosis, journal.record = diagnosis, record
    return Result(record, result.folder, result.reused)


def check_explainable(plan: Plan) -> None:
    """Raise ValueError if the race is on a custom training loop, whose networks are not accessible."""
    if isinstance(plan.task, Loop):
        raise ValueError("the models of a training loop are not accessible: only a task can be explained.")


def _replay_runs(plan: Plan, result: Result, engine: Executor, budget: float) -> dict[str, list[ReplayedRun]]:
    """Return the replayed runs of each entry, in the order of the seeds."""
    is_fixed = result.folder is not None or any(needs_closure(entry.rule) for entry in plan.entries)
    mode = result.record.plan.mode if is_fixed else ExecutionMode()
    results = {entry.name: entry for entry in result.record.entries}
    seeds = range(min(MEASURED_SEEDS, plan.seeds))
    selected = [(plan.final_trial(e, results[e.name].tuned, seed), e.name) for seed in seeds for e in plan.entries]
    # A stack holds the runs of one seed: one network per entry at most, which needs no more memory than the race.
    selected.sort(key=lambda pair: (pair[0].seed, pair[0].stack_key, pair[0].update_key))
    runs: dict[str, list[ReplayedRun]] = {entry.name: [] for entry in plan.entries}
    sizes = {trial.batch_size: trial.seed for trial, _ in reversed(selected)}
    costs = {size: engine.call(count_cost, plan.task, seed, size) for size, seed in sizes.items()}
    points = choose_points([costs[trial.batch_size] for trial, _ in selected], budget)
    for _, stack in groupby(selected, key=lambda pair: (pair[0].seed, pair[0].stack_key)):
        trials, names = zip(*stack, strict=True)
        for name, run in zip(names, engine.call(watch, plan.task, trials, mode, points), strict=True):
            runs[name].append(run)
    return runs


def _diagnose_runs(
    plan: Plan, result: Result, runs: Mapping[str, Sequence[ReplayedRun]]
) -> tuple[dict[str, EntryDiagnosis], tuple[FamilyContrast, ...]]:
    """Return the diagnosis of each entry from its replayed runs, and the comparisons of families."""
    results = {entry.name: entry for entry in result.record.entries}
    traits, edges = dict[str, frozenset[Trait]](), dict[str, float | None]()
    for entry in plan.entries:
        tuned: dict[str, Any] = dict(results[entry.name].tuned)
        if isinstance(entry.rule, Rule) and not entry.rule.is_matrix_rule:
            values = entry.values(**tuned)
            traits[entry.name] = find_traits(entry.rule, values)
            edges[entry.name] = settles_below(entry.rule, tuple(sorted(values.items())))
    levels = {
        name: [measure_levels(run, edges.get(name)) if run.lasted else {} for run in each]
        for name, each in runs.items()
    }
    ratios, families = compare_levels(levels, result.record.verdict.leaders, traits)
    entries = {}
    for name, each in runs.items():
        own = results[name]
        measured = diagnose(each, own.batch_size, edges.get(name))
        if (divergence := report_divergence(own.final.divergence_steps)) is not None:
            measured.append(divergence)
        compared = (compare_measurement(reason.to_record(), ratios.get((name, reason.kind))) for reason in measured)
        entries[name] = EntryDiagnosis(measurements=tuple(compared), updates=average_updates(each))
    return entries, families
