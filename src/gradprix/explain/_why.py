"""Why a race came out as it did: final runs trained once more and looked into, within a budget of seconds."""

import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from gradprix.race import Engine, Entry, Plan, Result
from gradprix.race.journal import Journal
from gradprix.rules import Rule
from gradprix.tasks import Loop
from gradprix.training.model_stack import Form
from gradprix.training.provenance import provenance
from gradprix.training.trial import Trial, form

from .diagnosis import averaged, diverged, reasons
from .preconditioner import settles_below
from .replay import Seen, watch

SEEDS = 5
"""Final runs of each entry that are looked into: intervals are over runs."""
SECONDS = 60.0
"""For looking into all of them; training them again comes on top."""
MEASURES = 3
"""Counts up when what is measured changes: what was kept before is measured anew."""


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
    explainable(plan)
    kept = result.record.get("why")
    if kept is not None and kept["of"] == [plan.key, MEASURES] and kept["budget"] >= seconds:
        return result
    started = time.perf_counter()
    entries = _look(plan, result, engine, seconds)
    took = round(time.perf_counter() - started, 1)
    found = {"of": [plan.key, MEASURES], "budget": seconds, "runs": min(SEEDS, plan.seeds), "seconds": took}
    record = {**result.record, "why": {**found, "entries": entries}}
    if result.folder is not None:
        with Journal(result.folder, made=provenance()) as journal:
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
        with Journal(result.folder, made=provenance()) as journal:
            how = Form(**journal.read("form"))
    by_name = {entry["name"]: entry for entry in result.record["entries"]}
    seeds = range(min(SEEDS, plan.seeds))
    wanted = [(plan.final_trial(e, by_name[e.name]["tuned"], seed), e.name) for seed in seeds for e in plan.entries]
    # A lane a seed: no wider than the entries are many, so that looking takes no more memory than the race did.
    wanted.sort(key=lambda pair: (pair[0].seed, _alike(pair[0]), form(pair[0])))
    runs: dict[str, list[Seen]] = {entry.name: [] for entry in plan.entries}
    for _, lane in groupby(wanted, key=lambda pair: (pair[0].seed, _alike(pair[0]))):
        trials, names = zip(*lane, strict=True)
        share = len(trials) / len(wanted)
        for name, seen in zip(names, engine.ask(watch, plan.task, trials, how, seconds * share), strict=True):
            runs[name].append(seen)
    return {entry.name: _explained(plan, entry, by_name[entry.name], runs[entry.name]) for entry in plan.entries}


def _alike(trial: Trial) -> tuple[int, str]:
    """What trials of a lane have in common."""
    return trial.batch_size, trial.schedule


def _explained(plan: Plan, entry: Entry, told: Mapping[str, Any], runs: Sequence[Seen]) -> dict[str, Any]:
    """What is said of an entry, as JSON."""
    point, edge = told["tuned"], None
    if isinstance(entry.rule, Rule):
        edge = settles_below(entry.rule, tuple(sorted(entry.values(**point).items())))
    found = reasons(runs, point.get("batch_size", plan.batch_size(entry)), edge)
    if (lost := diverged(told["final"]["lost"])) is not None:
        found.append(lost)
    return {"reasons": [reason.to_dict() for reason in found], "moves": averaged(runs)}
