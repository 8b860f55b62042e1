"""Why a race came out as it did: final runs trained once more and looked into, within a budget of seconds."""

import time
from collections.abc import Mapping
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch

from gradprix.race import Engine, Plan, Result
from gradprix.race._journal import Journal
from gradprix.race._network import Form
from gradprix.race._plan import made_by
from gradprix.race._trial import form
from gradprix.rules import Rule
from gradprix.tasks import Loop

from ._character import character
from ._reasons import averaged, diverged, reasons
from ._trace import step
from ._watch import watch

SEEDS = 3
"""Final runs of each entry that are looked into."""
SECONDS = 60.0
"""For looking into all of them; training them again comes on top, about as long as three seeds of the race took."""


def why(plan: Plan, result: Result, engine: Engine, seconds: float = SECONDS) -> Result:
    """Look into the final runs of a race, and keep what was found with it.

    Runs are trained again, to the bit as they were: what is said is of the networks that were judged. What was found is
    part of the record under `why`: for each entry its `reasons` (a number, its interval, and a sentence where it is
    clear) and its `moves` (effective rate, update-to-weight ratio and cosine over training).

    Args:
        plan: what was raced.
        result: what came of it.
        engine: where it was run.
        seconds: for looking; less is found in fewer.

    Raises:
        ValueError: for a training loop of one's own, whose networks nobody but it holds.
    """
    if result.record.get("why", {}).get("plan") == plan.key:
        return result
    explainable(plan)
    started = time.perf_counter()
    found = {"plan": plan.key, "seeds": min(SEEDS, plan.seeds), **_look(plan, result, engine, seconds)}
    record = {**result.record, "why": {**found, "seconds": round(time.perf_counter() - started, 1)}}
    if result.folder is not None:
        with Journal(result.folder, made=made_by()) as journal:
            journal.write("why", record["why"])
            journal.write("record", record)
    return Result(record, result.folder, result.reused)


def explainable(plan: Plan) -> None:
    """Raise ValueError for a training loop of one's own."""
    if isinstance(plan.task, Loop):
        raise ValueError("a training loop of your own keeps its networks to itself: only a task can be explained.")


def _look(plan: Plan, result: Result, engine: Engine, seconds: float) -> dict[str, Any]:
    how = Form()
    if result.folder is not None:
        with Journal(result.folder, made=made_by()) as journal:
            how = Form(**journal.read("form"))
    tuned = {entry["name"]: entry["tuned"] for entry in result.record["entries"]}
    wanted = [
        (plan.final_trial(entry, tuned[entry.name], seed), entry)
        for entry in plan.entries
        for seed in range(min(SEEDS, plan.seeds))
    ]
    wanted.sort(key=lambda pair: (pair[0].batch_size, pair[0].schedule, form(pair[0])))
    runs: dict[str, list[Any]] = {entry.name: [] for entry in plan.entries}
    for _, lane in groupby(wanted, key=lambda pair: (pair[0].batch_size, pair[0].schedule)):
        trials, entries = zip(*lane, strict=True)
        share = len(trials) / len(wanted)
        for entry, seen in zip(entries, engine.ask(watch, plan.task, trials, how, seconds * share), strict=True):
            runs[entry.name].append(seen)
    by_name = {entry["name"]: entry for entry in result.record["entries"]}
    explained = {}
    for entry in plan.entries:
        point = tuned[entry.name]
        size = point.get("batch_size", plan.batch_size(entry))
        edge = None
        if isinstance(entry.rule, Rule):
            edge = settles_below(entry.rule, tuple(sorted(entry.values(**{**point, "lr": 1.0}).items())))
        each = reasons(runs[entry.name], size, point["lr"], edge)
        lost = diverged(by_name[entry.name]["final"]["lost"])
        explained[entry.name] = {
            "reasons": [reason.to_dict() for reason in [*each, *([lost] if lost else [])]],
            "moves": averaged(runs[entry.name]),
        }
    return {"entries": explained}


@lru_cache(maxsize=256)
def settles_below(rule: Rule, values: tuple[tuple[str, Any], ...]) -> float | None:
    """The largest product of rate and curvature at which a rule settles on a parabola, found by trying the rule.

    2 for gradient descent, 2 (1 + β) for heavy ball. None for rules whose steps do not grow with the gradient: they
    have no such edge, and for those of matrices.

    Args:
        rule: the rule.
        values: all of its hyperparameters; the rate is not used.
    """
    own: Mapping[str, Any] = dict(values)
    if rule.of_matrices or rule.scope != "element" or rule.evaluate is not None:
        return None
    if abs(character(rule, **{**own, "lr": 1e-3}).scale - 100) > 1:
        return None
    products = torch.logspace(-2, 2, 401, dtype=torch.float64)
    x, state = torch.ones_like(products), dict[str, Any]()
    for t in range(1, 2_001):
        x = step(rule, {**own, "lr": products}, t, x, x.clone(), state)["x"].clamp(-1e30, 1e30)
    settled = products[x.abs() < 1]
    return float(settled.max()) if len(settled) else None
