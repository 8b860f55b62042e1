"""Records of races with known numbers."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from msgspec.structs import replace

from gradprix import race
from gradprix.race.best import Best
from gradprix.race.plan_description import MetricDescription, PlanDescription, PlannedEntry
from gradprix.race.record import (
    Budget,
    Cost,
    Efficiency,
    EntryResult,
    FinalRuns,
    RaceRecord,
    RaceVerdict,
    TuningSummary,
)
from gradprix.race.run_records import Artifacts, Curves, TuningRun
from gradprix.stats.recommendation import RecommendationReason
from gradprix.training.execution_mode import ExecutionMode
from gradprix.utils.margins import absolute_margin

CHANCE_LEVEL = 0.1
CODE = "gradprix.optim.SGD(params, lr=0.1)"


def make_record(
    values: Mapping[str, Sequence[float]],
    *,
    higher_is_better: bool = True,
    margin: float = 0.005,
    relative: bool = False,
    percent: bool = True,
    baseline: str | None = None,
    task: str = "made-up",
    verdict: race.Verdict | None = None,
    recommended: tuple[str, RecommendationReason] | None = None,
    edges: Mapping[str, tuple[str, ...]] | None = None,
    diverged: Mapping[str, int] | None = None,
) -> RaceRecord:
    """Return a record with these final values: all entries tuned at 0.1, a run at 10 diverged.

    Args:
        values: final values of each entry; a value at the chance level is a diverged run.
        higher_is_better: direction of the metric.
        margin: smallest difference that matters.
        relative: the margin is a share of the better mean.
        percent: values are percentages.
        baseline: entry that the others are compared with.
        task: name of the task.
        verdict: the comparisons; those of the values when None.
        recommended: recommended entry and reason; the first leader when None.
        edges: hyperparameters whose best value is at the edge, by entry.
        diverged: number of diverged final runs, by entry; those at the chance level when None.
    """
    if verdict is None:
        settings: dict[str, Any] = {"margin": margin, "relative": relative, "baseline": baseline, "level": 0.035}
        verdict = race.judge(values, higher_is_better=higher_is_better, **settings)
    seeds, best = len(next(iter(values.values()))), (max if higher_is_better else min)(map(fmean, values.values()))
    chosen, reason = recommended or (verdict.leaders[0], RecommendationReason.CHEAPEST_STEP)
    return RaceRecord(
        task=task,
        about="Numbers made up for a test.",
        budget=Budget(trials=6, seeds=seeds, examples=300),
        entries=tuple(
            _entry(name, each, name in verdict.leaders, (edges or {}).get(name, ()), diverged)
            for name, each in values.items()
        ),
        verdict=RaceVerdict(
            leaders=verdict.leaders,
            recommended=chosen,
            reason=reason,
            interim_analyses=((seeds, 0.035),),
            pairs=verdict.pairs,
            seeds=seeds,
            bound=0.004,
            level=0.95,
            margin=absolute_margin(margin, relative, best),
            tuning_deviation=0.001,
        ),
        cost=Cost(trials=56, examples=16800, seconds=60.0, step_seconds=dict.fromkeys(values, 0.002)),
        best=Best(name=chosen, optimizer="SGD", arguments={"lr": 0.1}, schedule="cosine", code=CODE),
        key="0123456789abcdef",
        plan=PlanDescription(
            task=task,
            fingerprint="0123456789abcdef0123",
            metric=MetricDescription(
                name="test accuracy",
                higher_is_better=higher_is_better,
                margin=margin,
                relative=relative,
                percent=percent,
            ),
            baseline=baseline,
            chance_level=CHANCE_LEVEL,
            epochs=3,
            examples=300,
            batch_size=32,
            schedule="cosine",
            loop=False,
            tune=("lr",),
            trials=6,
            seeds=seeds,
            seed=0,
            compiled=False,
            device="auto",
            left_out=(),
            entries=tuple(_planned(name) for name in values),
            crossed=False,
            tested=True,
            mode=ExecutionMode(),
        ),
        tuning_runs=dict.fromkeys(values, TUNING_RUNS),
        failed=(),
        initial_loss=2.3,
        artifacts=Artifacts(numbers={}, pictures={}, texts={}),
        parts=None,
        efficiency=Efficiency(
            expected={name: (0.5, 0.8, 0.9 + 0.01 * i) for i, name in enumerate(values)},
            probability_best={name: (1 / len(values),) * 3 for name in values},
            default=dict.fromkeys(values, 0.7),
            tuned=dict.fromkeys(values, 0.9),
            target=0.85,
            examples=dict.fromkeys(values, (*((200.0,) * (seeds - 3)), *((None,) * 3))),
        ),
        curves=dict.fromkeys(values, _curves(seeds)),
        versions={"python": "3", "torch": "2"},
    )


def _entry(
    name: str,
    values: Sequence[float],
    is_leader: bool,
    edges: tuple[str, ...],
    diverged: Mapping[str, int] | None,
) -> EntryResult:
    steps = [7 if value == CHANCE_LEVEL else None for value in values]
    if diverged is not None:
        steps = [7 if i < diverged[name] else None for i in range(len(values))]
    return EntryResult(
        name=name,
        optimizer="SGD",
        batch_size=32,
        tuned={"lr": 0.1},
        tuning=TuningSummary(trials=6, diverged=1, at_edge=bool(edges), edges=edges),
        final=FinalRuns(
            metric="test accuracy",
            values=tuple(values),
            mean=sum(values) / len(values),
            ci95=(0.9, 1.0),
            diverged=sum(step is not None for step in steps),
            divergence_steps=tuple(steps),
        ),
        losses=tuple(0.2 if step is None else None for step in steps),
        is_leader=is_leader,
        bound=0.004,
        tolerance=(0.05, 0.5),
        tolerance_decades=1.0,
        memory=1,
        updates=100,
        code=f"{CODE}  # {name}",
    )


def _planned(name: str) -> PlannedEntry:
    return PlannedEntry(
        name=name, optimizer="SGD", rule="sgd", fixed={}, space={"lr": [0.001, 1.0]}, batch_size=32, updates=100
    )


def _run(lr: float, metric: float, loss: float, *, seed: int = 1000, diverged: int | None = None) -> TuningRun:
    is_first = seed == 1000
    return TuningRun(
        point={"lr": lr},
        seed=seed,
        first=is_first,
        spread=is_first,
        start=2.3,
        loss=loss,
        metric=metric,
        diverged=diverged,
    )


TUNING_RUNS = (
    _run(0.001, 0.5, 2.0),
    _run(0.01, 0.95, 0.4),
    _run(0.1, 0.97, 0.1),
    _run(1.0, 0.94, 0.5),
    _run(0.1, 0.96, 0.12, seed=1001),
    _run(10.0, 0.1, math.inf, diverged=3),
)


def _curves(seeds: int) -> Curves:
    return Curves(
        examples=(100.0, 200.0, 300.0),
        train_loss=((1.0, 0.5, 0.2),) * seeds,
        valid_loss=(*((1.0, 0.6, 0.3),) * (seeds - 1), (math.nan,) * 3),
        valid_metric=((0.5, 0.8, 0.9),) * seeds,
    )


def replace_entry(record: RaceRecord, name: str, **changes: Any) -> RaceRecord:
    """Return a record in which one entry has other values."""
    return replace(record, entries=tuple(replace(e, **changes) if e.name == name else e for e in record.entries))
