"""A finished race as plain data: all that is shown is read from this."""

import platform
from typing import Any

import numpy as np

from ._answer import near_limit, protocol, sentence, take, windows
from ._entry import Entry
from ._plan import Plan
from ._trial import Outcome, Trial
from ._tune import Tuned
from ._verdict import judge, own_interval

Tried = dict[str, list[dict[str, Any]]]
Finals = dict[str, list[tuple[Trial, Outcome]]]


def make_record(
    plan: Plan, described: dict[str, Any], tried: Tried, tuned: dict[str, Tuned], finals: Finals, seconds: float
) -> dict[str, Any]:
    """Everything about a race as JSON.

    Args:
        plan: what was run.
        described: the plan as JSON.
        tried: every tuning run of each entry, in order.
        tuned: what tuning found.
        finals: the final runs of each entry, in the order of the seeds.
        seconds: how long the training took, interruptions left out.
    """
    metric = plan.task.metric
    values = {name: [_metric(outcome) for _, outcome in runs] for name, runs in finals.items()}
    verdict = judge(values, higher_is_better=metric.higher_is_better, margin=metric.margin, relative=metric.relative)
    first = {name: {run["lr"]: run["loss"] for run in runs if run["first"]} for name, runs in tried.items()}
    wide = windows(first)
    memory = {entry.name: entry.rule.memory(entry.values(1.0)) for entry in plan.entries}
    rates = {name: float(runs[0][0].values["lr"]) for name, runs in finals.items()}
    code = {entry.name: entry.code(rates[entry.name]) for entry in plan.entries}
    means = {name: float(np.mean(v)) for name, v in values.items()}
    diverged = {name: sum(outcome.diverged is not None for _, outcome in runs) for name, runs in finals.items()}
    best_mean = verdict.pairs[0].a
    near = {p.b for p in verdict.pairs if p.a == best_mean and p.difference <= metric.least(means[best_mean])}
    chosen, why = take(verdict, {best_mean, *near}, wide, memory, diverged)
    entries = [
        {
            "name": entry.name,
            "optimizer": entry.optimizer,
            "batch_size": plan.batch_size(entry),
            "tuned": {"lr": rates[entry.name]},
            "tuning": _tuning(tried[entry.name], tuned[entry.name]),
            "final": {"metric": metric.name, **_final(values[entry.name]), "diverged": diverged[entry.name]},
            "losses": [None if outcome.diverged else outcome.test_loss for _, outcome in finals[entry.name]],
            "leads": entry.name in verdict.leaders,
            "window": wide[entry.name],
            "memory": memory[entry.name],
            "updates": plan.updates(entry),
            "code": code[entry.name],
        }
        for entry in plan.entries
    ]
    return {
        "task": plan.task.name,
        "about": plan.task.about,
        "budget": {"trials": plan.trials, "seeds": plan.seeds, "examples": plan.examples},
        "entries": entries,
        "verdict": {
            "best": list(verdict.leaders),
            "take": chosen,
            "why": why,
            "text": sentence(plan, means, verdict, diverged, chosen, why, code[chosen]),
            "protocol": protocol(plan, verdict),
            "pairs": [{**vars(pair), "ci95": list(pair.ci95)} for pair in verdict.pairs],
        },
        "cost": {"trials": plan.runs, "examples": plan.runs * plan.examples, "seconds": round(seconds, 2)},
        "best": _best(next(entry for entry in plan.entries if entry.name == chosen), rates[chosen]),
        "key": plan.key,
        "plan": described,
        "tried": tried,
        "near_limit": near_limit(first),
        "curves": {name: _curves([outcome for _, outcome in runs]) for name, runs in finals.items()},
        "versions": {**described["versions"], "python": platform.python_version()},
    }


def _metric(outcome: Outcome) -> float:
    assert outcome.test_metric is not None, "final runs are judged"
    return outcome.test_metric


def _tuning(runs: list[dict[str, Any]], tuned: Tuned) -> dict[str, Any]:
    diverged = sum(run["diverged"] is not None for run in runs)
    return {"trials": len(runs), "diverged": diverged, "at_edge": tuned.at_edge}


def _final(values: list[float]) -> dict[str, Any]:
    return {"values": values, "mean": float(np.mean(values)), "ci95": list(own_interval(values))}


def _best(entry: Entry, lr: float) -> dict[str, Any]:
    arguments = entry.arguments(lr)
    return {"name": entry.name, "optimizer": entry.optimizer, "arguments": arguments, "code": entry.code(lr)}


def _curves(outcomes: list[Outcome]) -> dict[str, Any]:
    """Learning curves of one entry: `examples [epochs]`, the rest `[seeds][epochs]`."""
    table = np.array([outcome.curve for outcome in outcomes])
    names = ("train_loss", "valid_loss", "valid_metric")
    return {"examples": table[0, :, 0].tolist()} | {n: table[:, :, i].tolist() for i, n in enumerate(names, start=1)}
