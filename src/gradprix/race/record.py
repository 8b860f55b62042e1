"""Record of a finished race as plain data, the source of everything that is displayed."""

import math
import platform
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from gradprix.stats.alpha_spending import InterimAnalysis
from gradprix.stats.recommendation import near_optimal_limit, recommend, tolerance_decades
from gradprix.stats.verdict import judge, own_interval
from gradprix.tasks.loop import Loop
from gradprix.text.answer import format_answer, format_protocol
from gradprix.training.trial import Outcome, Trial
from gradprix.tuning.tuner import TuningResult

from .efficiency import measure_efficiency
from .entry import Entry
from .plan import Plan

FEWEST_PARTS = 10
"""Minimum number of parts of a test set for estimating their variance."""
Tried = dict[str, list[dict[str, Any]]]
Finals = dict[str, list[tuple[Trial, Outcome]]]


def make_record(
    plan: Plan,
    described: dict[str, Any],
    tried: Tried,
    tuned: dict[str, TuningResult],
    finals: Finals,
    cost: dict[str, Any],
    looks: Sequence[InterimAnalysis],
) -> dict[str, Any]:
    """Return the complete record of a race as JSON.

    Args:
        plan: the plan that was run.
        described: the plan as JSON.
        tried: the tuning runs of each entry, in order.
        tuned: the tuning result of each entry.
        finals: the final runs of each entry, in the order of the seeds.
        cost: training time without interruptions, and the time of a step of each tuned optimizer without stacking.
        looks: the interim analyses of the race, this one included.
    """
    metric = plan.task.metric
    outcomes = {name: [outcome for _, outcome in runs] for name, runs in finals.items()}
    trivial = _diverged_score(plan, outcomes)
    values = {name: [_metric(outcome, trivial) for outcome in runs] for name, runs in outcomes.items()}
    parts = _parts(outcomes, trivial)
    tested = all(outcome.tested for runs in outcomes.values() for outcome in runs)
    verdict = judge(
        values,
        higher_is_better=metric.higher_is_better,
        margin=metric.margin,
        relative=metric.relative,
        level=dict(looks)[plan.seeds],
        spent=sum(given for _, given in looks),
        baseline=plan.baseline,
        parts=parts,
    )
    first = {name: _loss_by_learning_rate(runs) for name, runs in tried.items()}
    start = _initial_loss(tried)
    limit = near_optimal_limit(first, start, metric if isinstance(plan.task, Loop) else None)
    # With other hyperparameters varying too, losses at neighbouring learning rates are not comparable.
    alone = {entry.name for entry in plan.entries if list(entry.space) == ["lr"]}
    wide = {name: tolerance_decades(losses, limit) if name in alone else 0.0 for name, losses in first.items()}
    points = {name: dict(result.point) for name, result in tuned.items()}
    memory = {entry.name: entry.rule.memory(entry.values(**points[entry.name])) for entry in plan.entries}
    means = {name: float(np.mean(v)) for name, v in values.items()}
    lost = {name: _divergence(runs) for name, runs in outcomes.items()}
    diverged = {name: counts["diverged"] for name, counts in lost.items()}
    top = means[verdict.leaders[0]]
    near_best = [name for name in verdict.leaders if abs(means[name] - top) <= metric.least(top)]
    chosen, why = recommend(verdict, near_best, wide, memory, diverged, plan.baseline)
    best = _recommended(plan, next(entry for entry in plan.entries if entry.name == chosen), points[chosen])

    sizes = {e.name: points[e.name].get("batch_size", plan.batch_size(e)) for e in plan.entries}
    updates = {entry.name: plan.updates(entry, sizes[entry.name]) for entry in plan.entries}

    def describe(entry: Entry) -> dict[str, Any]:
        name, point = entry.name, points[entry.name]
        return {
            "name": name,
            "optimizer": entry.optimizer,
            "batch_size": sizes[name],
            "tuned": point,
            "tuning": _tuning(tried[name], tuned[name]),
            "final": {"metric": metric.name, **_final(values[name]), **lost[name]},
            "losses": [None if outcome.diverged else outcome.test_loss for outcome in outcomes[name]],
            "leads": name in verdict.leaders,
            "window": wide[name],
            "memory": memory[name],
            "updates": updates[name],
            "code": entry.code(**point),
        }

    return {
        "task": plan.task.name,
        "about": plan.task.about,
        "budget": {"trials": plan.trials, "seeds": plan.seeds, "examples": plan.examples},
        "entries": [describe(entry) for entry in plan.entries],
        "verdict": {
            "best": list(verdict.leaders),
            "take": chosen,
            "why": why,
            "text": format_answer(plan, means, verdict, diverged, chosen, why, best["code"], updates),
            "protocol": format_protocol(plan, verdict),
            "looks": [list(look) for look in looks],
            "pairs": [{**vars(pair), "ci95": list(pair.ci95)} for pair in verdict.pairs],
        },
        "cost": {
            "trials": plan.runs,
            "examples": None if plan.examples is None else plan.runs * plan.examples,
            **cost,
        },
        "best": best,
        "key": plan.key,
        "plan": {**described, "trivial": trivial, "crossed": parts is not None, "tested": tested},
        "tried": tried,
        "failed": _failed_runs(tried, finals),
        "near_limit": limit,
        "start": start,
        "after": _artifacts(outcomes),
        "parts": parts,
        "less": measure_efficiency(plan.entries, points, tried, outcomes, metric, trivial),
        "curves": {name: _curves(runs) for name, runs in outcomes.items()},
        "versions": {**described["versions"], "python": platform.python_version()},
    }


def _diverged_score(plan: Plan, outcomes: Mapping[str, Sequence[Outcome]]) -> float:
    """Return the score of a diverged run: the task's chance level, or else the worst score of the other runs."""
    if plan.task.baseline is not None:
        return plan.task.baseline
    scored = [o.test_metric for runs in outcomes.values() for o in runs if o.test_metric is not None]
    return (min if plan.task.metric.higher_is_better else max)(scored, default=0.0)


def _metric(outcome: Outcome, trivial: float) -> float:
    return trivial if outcome.test_metric is None else outcome.test_metric


def _parts(outcomes: Mapping[str, Sequence[Outcome]], trivial: float) -> dict[str, list[list[float]]] | None:
    """Return the metric on parts of an official test set, if there is one and every part has a finite metric."""
    every = [outcome for runs in outcomes.values() for outcome in runs]
    counts = {len(outcome.test_parts or ()) for outcome in every if outcome.diverged is None}
    if len(counts) != 1 or (count := counts.pop()) < FEWEST_PARTS:
        return None
    diverged = [trivial] * count
    parts = {name: [outcome.test_parts or diverged for outcome in runs] for name, runs in outcomes.items()}
    return parts if np.isfinite(list(parts.values())).all() else None


def _loss_by_learning_rate(runs: list[dict[str, Any]]) -> dict[float, float]:
    """Return the validation loss of each learning rate on the first tuning seed: the minimum over other values."""
    losses: dict[float, float] = {}
    for run in runs:
        if run["first"]:
            losses[run["lr"]] = min(run["loss"], losses.get(run["lr"], math.inf))
    return losses


def _initial_loss(tried: Tried) -> float | None:
    """Return the median loss before training; None for user-supplied loops and races that did not record it."""
    starts = [run["start"] for runs in tried.values() for run in runs if run["first"] and run["start"] is not None]
    finite = [start for start in starts if math.isfinite(start)]
    return median(finite) if finite else None


def _artifacts(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """Return the artifacts of the final runs: numbers of each seed, None if diverged; pictures and texts of one run."""
    artifacts: dict[str, Any] = {"numbers": {}, "pictures": {}, "texts": {}}
    for name, runs in outcomes.items():
        numbers = [None if outcome.after is None else outcome.after["numbers"] for outcome in runs]
        for key in dict.fromkeys(key for row in numbers if row for key in row):
            values = [None if row is None else row.get(key) for row in numbers]
            artifacts["numbers"].setdefault(key, {})[name] = values
        first = next((outcome.after for outcome in runs if outcome.after is not None), None)
        for what in ("pictures", "texts"):
            for key, value in (first or {}).get(what, {}).items():
                artifacts[what].setdefault(key, {})[name] = value
    return artifacts


def _tuning(runs: list[dict[str, Any]], result: TuningResult) -> dict[str, Any]:
    diverged = sum(run["diverged"] is not None for run in runs)
    return {"trials": len(runs), "diverged": diverged, "at_edge": bool(result.edges), "edges": list(result.edges)}


def _final(values: list[float]) -> dict[str, Any]:
    return {"values": values, "mean": float(np.mean(values)), "ci95": list(own_interval(values))}


def _recommended(plan: Plan, entry: Entry, point: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": entry.name,
        "optimizer": entry.optimizer,
        "arguments": entry.arguments(**point),
        "code": entry.code(**point),
        "schedule": point.get("schedule", plan.task.schedule),
    }


def _divergence(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return the number of diverged runs, and for each run the step at which it diverged, or None."""
    steps = [outcome.diverged for outcome in outcomes]
    return {"diverged": sum(step is not None for step in steps), "lost": steps}


def _failed_runs(tried: Tried, finals: Finals) -> list[dict[str, Any]]:
    """Return the training runs that failed: entry, learning rate, seed and error."""
    runs = [(name, run["lr"], run["seed"], run.get("error")) for name, runs in tried.items() for run in runs]
    runs += [(name, t.values["lr"], t.seed, o.error) for name, pairs in finals.items() for t, o in pairs]
    return [dict(zip(("entry", "lr", "seed", "error"), run, strict=True)) for run in runs if run[-1] is not None]


def _curves(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return the learning curves of an entry: `examples [epochs]`, the rest `[seeds][epochs]`, last values repeated."""
    longest = max(len(outcome.curve) for outcome in outcomes)
    steps = max((outcome.curve for outcome in outcomes), key=len)
    padded = [[*o.curve, *([o.curve[-1]] * (longest - len(o.curve)))] for o in outcomes]
    table = np.array(padded)
    table[:, :, 0] = [point[0] for point in steps]
    names = ("train_loss", "valid_loss", "valid_metric")
    return {"examples": table[0, :, 0].tolist()} | {n: table[:, :, i].tolist() for i, n in enumerate(names, start=1)}
