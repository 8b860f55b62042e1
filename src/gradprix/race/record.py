"""A finished race as plain data: all that is shown is read from this."""

import math
import platform
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from gradprix.stats.alpha_spending import Look
from gradprix.stats.verdict import judge, own_interval
from gradprix.tasks.loop import Loop
from gradprix.text.answer import near_limit, protocol, sentence, take, window
from gradprix.training.trial import Outcome, Trial
from gradprix.tuning.search import Found

from .efficiency import with_less
from .entry import Entry
from .plan import Plan

FEWEST_PARTS = 10
"""Parts of a test set from which their spread can be told."""
Tried = dict[str, list[dict[str, Any]]]
Finals = dict[str, list[tuple[Trial, Outcome]]]


def make_record(
    plan: Plan,
    described: dict[str, Any],
    tried: Tried,
    tuned: dict[str, Found],
    finals: Finals,
    cost: dict[str, Any],
    looks: Sequence[Look],
) -> dict[str, Any]:
    """Everything about a race as JSON.

    Args:
        plan: what was run.
        described: the plan as JSON.
        tried: every tuning run of each entry, in order.
        tuned: what tuning found.
        finals: the final runs of each entry, in the order of the seeds.
        cost: how long the training took, interruptions left out, and a step of each tuned optimizer by itself.
        looks: those that were taken at the race, this one among them.
    """
    metric = plan.task.metric
    outcomes = {name: [outcome for _, outcome in runs] for name, runs in finals.items()}
    trivial = _trivial(plan, outcomes)
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
    first = {name: _by_rate(runs) for name, runs in tried.items()}
    start = _start(tried)
    limit = near_limit(first, start, metric if isinstance(plan.task, Loop) else None)
    # With other values varying too, what a rate reached says little about its neighbours.
    alone = {entry.name for entry in plan.entries if list(entry.space) == ["lr"]}
    wide = {name: window(losses, limit) if name in alone else 0.0 for name, losses in first.items()}
    points = {name: dict(found.point) for name, found in tuned.items()}
    memory = {entry.name: entry.rule.memory(entry.values(**points[entry.name])) for entry in plan.entries}
    means = {name: float(np.mean(v)) for name, v in values.items()}
    lost = {name: _lost(runs) for name, runs in outcomes.items()}
    diverged = {name: found["diverged"] for name, found in lost.items()}
    top = means[verdict.leaders[0]]
    near = [name for name in verdict.leaders if abs(means[name] - top) <= metric.least(top)]
    chosen, why = take(verdict, near, wide, memory, diverged, plan.baseline)
    best = _best(plan, next(entry for entry in plan.entries if entry.name == chosen), points[chosen])

    sizes = {e.name: points[e.name].get("batch_size", plan.batch_size(e)) for e in plan.entries}
    updates = {entry.name: plan.updates(entry, sizes[entry.name]) for entry in plan.entries}

    def about(entry: Entry) -> dict[str, Any]:
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
        "entries": [about(entry) for entry in plan.entries],
        "verdict": {
            "best": list(verdict.leaders),
            "take": chosen,
            "why": why,
            "text": sentence(plan, means, verdict, diverged, chosen, why, best["code"], updates),
            "protocol": protocol(plan, verdict),
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
        "failed": _failed(tried, finals),
        "near_limit": limit,
        "start": start,
        "after": _after(outcomes),
        "parts": parts,
        "less": with_less(plan.entries, points, tried, outcomes, metric, trivial),
        "curves": {name: _curves(runs) for name, runs in outcomes.items()},
        "versions": {**described["versions"], "python": platform.python_version()},
    }


def _trivial(plan: Plan, outcomes: Mapping[str, Sequence[Outcome]]) -> float:
    """What a run that diverged scores: the task's, or the worst of the others."""
    if plan.task.baseline is not None:
        return plan.task.baseline
    scored = [o.test_metric for runs in outcomes.values() for o in runs if o.test_metric is not None]
    return (min if plan.task.metric.higher_is_better else max)(scored, default=0.0)


def _metric(outcome: Outcome, trivial: float) -> float:
    return trivial if outcome.test_metric is None else outcome.test_metric


def _parts(outcomes: Mapping[str, Sequence[Outcome]], trivial: float) -> dict[str, list[list[float]]] | None:
    """The metric on parts of an official test set, if there is one and every part has a metric."""
    every = [outcome for runs in outcomes.values() for outcome in runs]
    counts = {len(outcome.test_parts or ()) for outcome in every if outcome.diverged is None}
    if len(counts) != 1 or (count := counts.pop()) < FEWEST_PARTS:
        return None
    lost = [trivial] * count
    found = {name: [outcome.test_parts or lost for outcome in runs] for name, runs in outcomes.items()}
    return found if np.isfinite(list(found.values())).all() else None


def _by_rate(runs: list[dict[str, Any]]) -> dict[float, float]:
    """The validation loss of each learning rate on the first tuning seed: the least, where other things varied, too."""
    losses: dict[float, float] = {}
    for run in runs:
        if run["first"]:
            losses[run["lr"]] = min(run["loss"], losses.get(run["lr"], math.inf))
    return losses


def _start(tried: Tried) -> float | None:
    """The median loss before training; None in races from before it was noted, and of training loops of one's own."""
    starts = [run["start"] for runs in tried.values() for run in runs if run["first"] and run["start"] is not None]
    finite = [start for start in starts if math.isfinite(start)]
    return median(finite) if finite else None


def _after(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """What else the task found: numbers under each seed, None where a run diverged; the rest of the first seed."""
    found: dict[str, Any] = {"numbers": {}, "pictures": {}, "texts": {}}
    for name, runs in outcomes.items():
        numbers = [None if outcome.after is None else outcome.after["numbers"] for outcome in runs]
        for key in dict.fromkeys(key for row in numbers if row for key in row):
            values = [None if row is None else row.get(key) for row in numbers]
            found["numbers"].setdefault(key, {})[name] = values
        first = next((outcome.after for outcome in runs if outcome.after is not None), None)
        for what in ("pictures", "texts"):
            for key, value in (first or {}).get(what, {}).items():
                found[what].setdefault(key, {})[name] = value
    return found


def _tuning(runs: list[dict[str, Any]], found: Found) -> dict[str, Any]:
    diverged = sum(run["diverged"] is not None for run in runs)
    return {"trials": len(runs), "diverged": diverged, "at_edge": bool(found.edges), "edges": list(found.edges)}


def _final(values: list[float]) -> dict[str, Any]:
    return {"values": values, "mean": float(np.mean(values)), "ci95": list(own_interval(values))}


def _best(plan: Plan, entry: Entry, point: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": entry.name,
        "optimizer": entry.optimizer,
        "arguments": entry.arguments(**point),
        "code": entry.code(**point),
        "schedule": point.get("schedule", plan.task.schedule),
    }


def _lost(outcomes: list[Outcome]) -> dict[str, Any]:
    """How many runs diverged, and for each the step at which it did, or None."""
    steps = [outcome.diverged for outcome in outcomes]
    return {"diverged": sum(step is not None for step in steps), "lost": steps}


def _failed(tried: Tried, finals: Finals) -> list[dict[str, Any]]:
    """The networks that could not be trained: whose, with which learning rate and seed, and why."""
    runs = [(name, run["lr"], run["seed"], run.get("error")) for name, runs in tried.items() for run in runs]
    runs += [(name, t.values["lr"], t.seed, found.error) for name, pairs in finals.items() for t, found in pairs]
    return [dict(zip(("entry", "lr", "seed", "error"), run, strict=True)) for run in runs if run[-1] is not None]


def _curves(outcomes: list[Outcome]) -> dict[str, Any]:
    """Learning curves of one entry: `examples [epochs]`, the rest `[seeds][epochs]`; what ends early stays as it is."""
    longest = max(len(outcome.curve) for outcome in outcomes)
    steps = max((outcome.curve for outcome in outcomes), key=len)
    whole = [[*o.curve, *([o.curve[-1]] * (longest - len(o.curve)))] for o in outcomes]
    table = np.array(whole)
    table[:, :, 0] = [point[0] for point in steps]
    names = ("train_loss", "valid_loss", "valid_metric")
    return {"examples": table[0, :, 0].tolist()} | {n: table[:, :, i].tolist() for i, n in enumerate(names, start=1)}
