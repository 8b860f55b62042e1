"""Assembly of a race's record from its runs."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from gradprix.stats.alpha_spending import InterimAnalysis
from gradprix.stats.recommendation import Candidate, initial_loss, near_optimal_limit, recommend, tolerance_decades
from gradprix.stats.verdict import Verdict, judge, own_interval
from gradprix.tasks.loop import Loop
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trial import Outcome
from gradprix.tuning.tuner import TuningResult

from .best import Best
from .efficiency import measure_efficiency
from .entry import Entry
from .plan import Plan
from .plan_description import PlanDescription
from .record import Budget, Cost, EntryResult, FinalRuns, RaceRecord, RaceVerdict, TuningSummary
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
    losses_by_learning_rate,
)

FEWEST_PARTS = 10
"""Minimum number of parts of a test set for estimating their variance."""
Parts = dict[str, tuple[tuple[float, ...], ...]]


def make_record(
    plan: Plan,
    mode: ExecutionMode,
    tuning_runs: TuningRuns,
    tuned: Mapping[str, TuningResult],
    finals: Finals,
    *,
    seconds: float,
    step_seconds: dict[str, float | None],
    interim_analyses: Sequence[InterimAnalysis],
    reruns: Sequence[Rerun] = (),
) -> RaceRecord:
    """Return the complete record of a race.

    Args:
        plan: the plan that was run.
        mode: its execution mode.
        tuning_runs: the tuning runs of each entry, in order.
        tuned: the tuning result of each entry.
        finals: the final runs of each entry, in the order of the seeds.
        seconds: training time without interruptions.
        step_seconds: seconds of a step of each tuned optimizer without stacking; None where unknown.
        interim_analyses: the interim analyses of the race, this one included.
        reruns: final runs that were repeated in a new process.
    """
    outcomes = {name: [outcome for _, outcome in runs] for name, runs in finals.items()}
    chance_level = _diverged_score(plan, outcomes)
    values = {name: tuple(_metric(outcome, chance_level) for outcome in runs) for name, runs in outcomes.items()}
    parts = _parts(outcomes, chance_level)
    verdict = _judge(plan, values, parts, interim_analyses)
    losses = {name: losses_by_learning_rate(runs) for name, runs in tuning_runs.items()}
    start = initial_loss(run.start for runs in tuning_runs.values() for run in runs if run.first)
    limit = near_optimal_limit(losses, start, plan.task.metric if isinstance(plan.task, Loop) else None)
    points = {name: dict(result.point) for name, result in tuned.items()}
    entries = tuple(
        _entry_result(
            plan,
            entry,
            tuning_runs[entry.name],
            tuned[entry.name],
            outcomes[entry.name],
            scores=values[entry.name],
            # With other hyperparameters varying too, losses at neighbouring learning rates are not comparable.
            tolerance=tolerance_decades(losses[entry.name], limit) if list(entry.space) == ["lr"] else 0.0,
            is_leader=entry.name in verdict.leaders,
        )
        for entry in plan.entries
    )
    race_verdict = _race_verdict(plan, verdict, entries, interim_analyses)
    best = next(entry for entry in plan.entries if entry.name == race_verdict.recommended)
    tested = all(outcome.tested for runs in outcomes.values() for outcome in runs)
    rest = {"trivial": chance_level, "crossed": parts is not None, "tested": tested, "mode": mode}
    return RaceRecord(
        task=plan.task.name,
        about=plan.task.about,
        budget=Budget(trials=plan.trials, seeds=plan.seeds, examples=plan.examples),
        entries=entries,
        verdict=race_verdict,
        cost=Cost(
            trials=plan.runs,
            examples=None if plan.examples is None else plan.runs * plan.examples,
            seconds=seconds,
            step_seconds=step_seconds,
        ),
        best=_best(plan, best, points[best.name]),
        key=plan.key,
        plan=msgspec.convert(to_json({**plan.description, **rest}), PlanDescription),
        tuning_runs={name: tuple(runs) for name, runs in tuning_runs.items()},
        failed=failed_runs(tuning_runs, finals),
        near_optimal_limit=limit,
        initial_loss=start,
        artifacts=Artifacts.from_outcomes(outcomes),
        parts=parts,
        efficiency=measure_efficiency(plan.entries, points, tuning_runs, outcomes, plan.task.metric, chance_level),
        curves={name: Curves.from_outcomes(runs) for name, runs in outcomes.items()},
        versions={**plan.description["versions"], "python": platform.python_version()},
        reruns=tuple(reruns),
    )


def _diverged_score(plan: Plan, outcomes: Outcomes) -> float:
    """Return the score of a diverged run: the task's chance level, or else the worst score of the other runs."""
    if plan.task.baseline is not None:
        return plan.task.baseline
    scored = [o.test_metric for runs in outcomes.values() for o in runs if o.test_metric is not None]
    return (min if plan.task.metric.higher_is_better else max)(scored, default=0.0)


def _metric(outcome: Outcome, chance_level: float) -> float:
    return chance_level if outcome.test_metric is None else outcome.test_metric


def _parts(outcomes: Outcomes, chance_level: float) -> Parts | None:
    """Return the metric on parts of an official test set, if there is one and every part has a finite metric."""
    every = [outcome for runs in outcomes.values() for outcome in runs]
    counts = {len(outcome.test_parts or ()) for outcome in every if outcome.diverged is None}
    if len(counts) != 1 or (count := counts.pop()) < FEWEST_PARTS:
        return None
    diverged = [chance_level] * count
    parts = {name: tuple(tuple(o.test_parts or diverged) for o in runs) for name, runs in outcomes.items()}
    return parts if np.isfinite(list(parts.values())).all() else None


def _judge(
    plan: Plan,
    values: Mapping[str, Sequence[float]],
    parts: Parts | None,
    interim_analyses: Sequence[InterimAnalysis],
) -> Verdict:
    metric = plan.task.metric
    return judge(
        values,
        higher_is_better=metric.higher_is_better,
        margin=metric.margin,
        relative=metric.relative,
        level=dict(interim_analyses)[plan.seeds],
        spent=sum(level for _, level in interim_analyses),
        baseline=plan.baseline,
        parts=parts,
    )


def _entry_result(
    plan: Plan,
    entry: Entry,
    runs: Sequence[TuningRun],
    result: TuningResult,
    outcomes: Sequence[Outcome],
    *,
    scores: tuple[float, ...],
    tolerance: float,
    is_leader: bool,
) -> EntryResult:
    point = dict(result.point)
    batch_size = point.get("batch_size", plan.batch_size(entry))
    divergence_steps = tuple(outcome.diverged for outcome in outcomes)
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
        final=FinalRuns(
            metric=plan.task.metric.name,
            values=scores,
            mean=float(np.mean(scores)),
            ci95=own_interval(scores),
            diverged=sum(step is not None for step in divergence_steps),
            divergence_steps=divergence_steps,
        ),
        losses=tuple(None if outcome.diverged else outcome.test_loss for outcome in outcomes),
        is_leader=is_leader,
        tolerance_decades=tolerance,
        memory=entry.rule.memory(entry.values(**point)),
        updates=plan.updates(entry, batch_size),
        code=entry.code(**point),
    )


def _race_verdict(
    plan: Plan, verdict: Verdict, entries: Sequence[EntryResult], interim_analyses: Sequence[InterimAnalysis]
) -> RaceVerdict:
    candidates = {
        entry.name: Candidate(entry.final.mean, entry.final.diverged, entry.tolerance_decades, entry.memory)
        for entry in entries
    }
    recommended, reason = recommend(verdict, candidates, plan.task.metric, plan.baseline)
    return RaceVerdict(
        leaders=verdict.leaders,
        recommended=recommended,
        reason=reason,
        interim_analyses=tuple(interim_analyses),
        pairs=verdict.pairs,
    )


def _best(plan: Plan, entry: Entry, point: dict[str, Any]) -> Best:
    return Best(
        name=entry.name,
        optimizer=entry.optimizer,
        arguments=entry.arguments(**point),
        code=entry.code(**point),
        schedule=point.get("schedule", plan.task.schedule),
    )
