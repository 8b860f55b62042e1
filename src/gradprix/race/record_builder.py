"""Assembly of the record of a race from its training runs."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from gradprix.stats.alpha_spending import InterimAnalysis
from gradprix.stats.permutation_test import LEVEL
from gradprix.stats.recommendation import initial_loss
from gradprix.stats.verdict import own_interval
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trial import Outcome
from gradprix.tuning.tuner import TuningResult

from .analysis import Analysis, Parts, decades
from .best import Best
from .efficiency import measure_efficiency
from .entry import Entry
from .plan import Plan
from .plan_description import PlanDescription
from .record import (
    Budget,
    BudgetSensitivity,
    Cost,
    EntryResult,
    EqualTime,
    FinalRuns,
    RaceRecord,
    RaceVerdict,
    TuningSummary,
)
from .record_json import to_json
from .run_records import (
    Artifacts,
    Curves,
    Finals,
    Outcomes,
    Rerun,
    TuningRun,
    TuningRuns,
    failed_runs,
    outcomes_by_entry,
)


def make_record(
    plan: Plan,
    mode: ExecutionMode,
    tuning_runs: TuningRuns,
    tuned: Mapping[str, TuningResult],
    finals: Finals,
    analysis: Analysis,
    *,
    cost: Cost,
    interim_analyses: Sequence[InterimAnalysis],
    reruns: Sequence[Rerun] = (),
    shortened: Sequence[Finals] = (),
    budget_sensitivity: BudgetSensitivity | None = None,
    equal_time: EqualTime | None = None,
) -> RaceRecord:
    """Return the complete record of a race.

    Args:
        plan: the plan that was run.
        mode: its execution mode.
        tuning_runs: the tuning runs of each entry, in order.
        tuned: the tuning result of each entry.
        finals: the final runs of each entry, in the order of the seeds.
        analysis: the last interim analysis.
        cost: training runs and time of the race.
        interim_analyses: all interim analyses of the race.
        reruns: final runs that were repeated in a new process.
        shortened: groups of final runs with fewer examples.
        budget_sensitivity: comparison with a quarter of the examples; None if there is none.
        equal_time: comparison in equal time; None if there is none.
    """
    outcomes = outcomes_by_entry(finals)
    seeds = len(next(iter(finals.values())))
    points = {name: dict(result.point) for name, result in tuned.items()}
    entries = tuple(
        _entry_result(plan, entry, tuning_runs[entry.name], tuned[entry.name], outcomes[entry.name], analysis)
        for entry in plan.entries
    )
    best = next(entry for entry in plan.entries if entry.name == analysis.recommended)
    return RaceRecord(
        task=plan.task.name,
        about=plan.task.about,
        budget=Budget(trials=plan.trials, seeds=seeds, examples=plan.examples),
        entries=entries,
        verdict=RaceVerdict(
            leaders=analysis.verdict.leaders,
            recommended=analysis.recommended,
            reason=analysis.reason,
            interim_analyses=tuple(interim_analyses),
            pairs=analysis.verdict.pairs,
            seeds=seeds,
            bound=analysis.bounds[analysis.recommended],
            level=1 - LEVEL,
            margin=analysis.margin,
            tuning_deviation=analysis.tuning_deviation,
        ),
        cost=cost,
        best=make_best(plan, best, points[best.name]),
        key=plan.key,
        plan=describe_plan(plan, mode, outcomes, analysis.chance_level, analysis.parts),
        tuning_runs={name: tuple(runs) for name, runs in tuning_runs.items()},
        failed=failed_runs(tuning_runs, finals, *shortened),
        initial_loss=initial_loss(run.start for runs in tuning_runs.values() for run in runs if run.first),
        artifacts=Artifacts.from_outcomes(outcomes),
        parts=analysis.parts,
        efficiency=measure_efficiency(
            plan.entries, points, tuning_runs, outcomes, plan.task.metric, analysis.chance_level, analysis.curves
        ),
        curves={name: Curves.from_outcomes(runs) for name, runs in outcomes.items()},
        versions={**plan.description["versions"], "python": platform.python_version()},
        reruns=tuple(reruns),
        budget_sensitivity=budget_sensitivity,
        equal_time=equal_time,
    )


def describe_plan(
    plan: Plan, mode: ExecutionMode, outcomes: Outcomes, chance_level: float, parts: Parts | None
) -> PlanDescription:
    """Describe a plan as it was run.

    Args:
        plan: plan that was run.
        mode: execution mode of the training runs.
        outcomes: outcomes of the final runs.
        chance_level: score of a diverged run.
        parts: metric on the parts of an official test set; None if there is no official test set.
    """
    tested = all(outcome.tested for runs in outcomes.values() for outcome in runs)
    rest = {"trivial": chance_level, "crossed": parts is not None, "tested": tested, "mode": mode}
    return msgspec.convert(to_json({**plan.description, **rest}), PlanDescription)


def summarize_finals(plan: Plan, scores: Sequence[float], outcomes: Sequence[Outcome]) -> FinalRuns:
    """Summarize the final runs of an entry.

    Args:
        plan: plan that was run.
        scores: metric of each run; diverged runs have the chance level.
        outcomes: outcome of each run.
    """
    divergence_steps = tuple(outcome.diverged for outcome in outcomes)
    return FinalRuns(
        metric=plan.task.metric.name,
        values=tuple(scores),
        mean=float(np.mean(scores)),
        ci95=own_interval(scores),
        diverged=sum(step is not None for step in divergence_steps),
        divergence_steps=divergence_steps,
    )


def _entry_result(
    plan: Plan,
    entry: Entry,
    runs: Sequence[TuningRun],
    result: TuningResult,
    outcomes: Sequence[Outcome],
    analysis: Analysis,
) -> EntryResult:
    point = dict(result.point)
    batch_size = point.get("batch_size", plan.batch_size(entry))
    return EntryResult(
        name=entry.name,
        optimizer=entry.optimizer,
        batch_size=batch_size,
        tuned=point,
        tuning=TuningSummary(
            trials=len(runs),
            diverged=sum(run.diverged is not None for run in runs),
            at_edge=bool(result.edges),
            edges=tuple(result.edges),
        ),
        final=summarize_finals(plan, analysis.values[entry.name], outcomes),
        losses=tuple(None if outcome.diverged else outcome.test_loss for outcome in outcomes),
        is_leader=entry.name in analysis.verdict.leaders,
        bound=analysis.bounds[entry.name],
        tolerance=analysis.tolerances[entry.name],
        tolerance_decades=decades(analysis.tolerances[entry.name]),
        memory=entry.rule.memory(entry.values(**point)),
        updates=plan.updates(entry, batch_size),
        gradients=_mean_gradients(outcomes),
        code=entry.code(**point),
    )


def _mean_gradients(outcomes: Sequence[Outcome]) -> float | None:
    """Return the mean number of gradients of the runs that did not diverge; None if it is unknown."""
    counts = [outcome.gradients for outcome in outcomes if outcome.diverged is None and outcome.gradients is not None]
    return float(np.mean(counts)) if counts else None


def make_best(plan: Plan, entry: Entry, point: dict[str, Any]) -> Best:
    """Return the description of an optimizer with its tuned hyperparameters.

    Args:
        plan: plan that was run.
        entry: entry to describe.
        point: tuned values of the entry.
    """
    return Best(
        name=entry.name,
        optimizer=entry.optimizer,
        arguments=entry.arguments(**point),
        code=entry.code(**point),
        schedule=point.get("schedule", entry.schedule or plan.task.schedule),
        clip_norm=point.get("clip_norm", getattr(plan.task, "clip_norm", None)),
        sam_rho=point.get("sam_rho", entry.sam_rho),
    )
