"""Explanation of a race's result: the final runs are replayed and measured within a time limit."""

import time
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from msgspec.structs import replace

from gradprix.race import Entry, Executor, Plan, Result
from gradprix.race.diagnosis_record import Diagnosis, EntryDiagnosis
from gradprix.race.journal import Journal
from gradprix.race.record import EntryResult
from gradprix.rules import Rule
from gradprix.tasks import Loop
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.provenance import provenance
from gradprix.training.torch_optimizer_adapter import needs_closure

from .diagnosis import average_updates, diagnose, report_divergence
from .preconditioner import settles_below
from .replay import ReplayedRun, watch

MEASURED_SEEDS = 5
"""Number of final runs per entry that are measured; confidence intervals are over runs."""
SECONDS = 60.0
"""Time limit in seconds for all measurements of a race, not counting the replayed training."""
MEASURES = 3
"""Version of the measurements. Incrementing it invalidates saved explanations."""


def why(plan: Plan, result: Result, engine: Executor, seconds: float = SECONDS) -> Result:
    """Explain the final runs of a race and save the explanation with it.

    The replayed runs are bitwise equal to the original ones, so that the measurements apply to the networks that the
    race evaluated. If a saved explanation used the same plan and at least the same time limit, it is returned instead.

    Args:
        plan: plan of the race.
        result: result of the race.
        engine: executor that replays the runs.
        seconds: time limit for the measurements; with a smaller limit, fewer measurements are made.

    Returns:
        The result with a `diagnosis` in its record. For each entry, the diagnosis holds measurements (a number, its
        confidence interval, and a finding if it is significant) and statistics of the updates over training (effective
        rate, update-to-weight ratio and cosine).

    Raises:
        ValueError: if the race is on a custom training loop, whose networks are not accessible.
    """
    check_explainable(plan)
    saved = result.record.diagnosis
    if saved is not None and saved.identity == (plan.key, MEASURES) and saved.budget >= seconds:
        return result
    start_time = time.perf_counter()
    entries = _measure_runs(plan, result, engine, seconds)
    elapsed = round(time.perf_counter() - start_time, 1)
    diagnosis = Diagnosis(
        identity=(plan.key, MEASURES),
        budget=seconds,
        runs=min(MEASURED_SEEDS, plan.seeds),
        seconds=elapsed,
        entries=entries,
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


def _measure_runs(plan: Plan, result: Result, engine: Executor, seconds: float) -> dict[str, EntryDiagnosis]:
    is_fixed = result.folder is not None or any(needs_closure(entry.rule) for entry in plan.entries)
    mode = result.record.plan.mode if is_fixed else ExecutionMode()
    results = {entry.name: entry for entry in result.record.entries}
    seeds = range(min(MEASURED_SEEDS, plan.seeds))
    selected = [(plan.final_trial(e, results[e.name].tuned, seed), e.name) for seed in seeds for e in plan.entries]
    # A stack holds the runs of one seed: one network per entry at most, which needs no more memory than the race.
    selected.sort(key=lambda pair: (pair[0].seed, pair[0].stack_key, pair[0].update_key))
    runs: dict[str, list[ReplayedRun]] = {entry.name: [] for entry in plan.entries}
    for _, stack in groupby(selected, key=lambda pair: (pair[0].seed, pair[0].stack_key)):
        trials, names = zip(*stack, strict=True)
        share = len(trials) / len(selected)
        for name, run in zip(names, engine.call(watch, plan.task, trials, mode, seconds * share), strict=True):
            runs[name].append(run)
    return {entry.name: _explain_entry(plan, entry, results[entry.name], runs[entry.name]) for entry in plan.entries}


def _explain_entry(plan: Plan, entry: Entry, result: EntryResult, runs: Sequence[ReplayedRun]) -> EntryDiagnosis:
    """Return the diagnosis of an entry from its replayed runs."""
    tuned: dict[str, Any] = dict(result.tuned)
    edge = None
    if isinstance(entry.rule, Rule):
        edge = settles_below(entry.rule, tuple(sorted(entry.values(**tuned).items())))
    measured = diagnose(runs, result.batch_size, edge)
    if (divergence := report_divergence(result.final.divergence_steps)) is not None:
        measured.append(divergence)
    return EntryDiagnosis(measurements=tuple(reason.to_record() for reason in measured), updates=average_updates(runs))
