"""Repeats a final run of each user-supplied part alone in a new process: state kept between runs would change it."""

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as NotInTime
from functools import partial
from typing import Any

from gradprix.executors.executor import Engine, train
from gradprix.tasks import Task
from gradprix.tasks.loop import Loop, Problem
from gradprix.training.model_stack import Form
from gradprix.training.torch_optimizer_adapter import Anyone
from gradprix.training.trial import Outcome, Trial

from .plan import Plan

SHARE = 0.05
"""The share of a race's training that may be repeated."""
ALONE = 6.0
"""About how many times as long a model takes alone as in a stack."""
SHORT = 2.0
"""Seconds of training that one repetition may take in any race: small races have fewer than twenty runs."""
PATIENCE = 20.0
"""Seconds to wait for a repetition at most, where a share of the race is less: its data must be loaded anew."""
TOLERANCE = 1e-3
"""Relative difference that a training loop may have: it need not be deterministic."""
NOT_THE_USERS = {"gradprix", "torch"}


def prepare(plan: Plan, form: Form, engine: Engine) -> None:
    """Start what a repetition needs while the final runs are under way."""
    if form.device == "cpu" and (_users_entries(plan) or _is_users_task(plan.task)):
        engine.submit_fresh(int)


def repeat(
    plan: Plan,
    form: Form,
    engine: Engine,
    finals: Mapping[str, Sequence[tuple[Trial, Outcome]]],
    seconds: float,
    patience: float,
    known: Mapping[str, Any],
) -> dict[str, Any]:
    """Repeat final runs, each alone in a new process, and compare what comes of them.

    Args:
        plan: of the race.
        form: how its models are trained.
        engine: where.
        finals: the final runs of each entry.
        seconds: about how long a run takes one worker.
        patience: seconds to wait for each repetition.
        known: earlier repetitions in this race.

    Returns:
        By the keys of the trials: entry, seed, both scores, and whether all numbers are the same. What could not be
        repeated, or not in time, is left out.
    """
    chosen = {name: finals[name][-1] for name in _choose(plan, form, seconds)}  # before the last, most have run
    futures = {
        name: engine.submit_fresh(_repeat, plan.task, trial, form)
        for name, (trial, outcome) in chosen.items()
        if trial.key not in known and outcome.error is None
    }
    results = {trial.key: known[trial.key] for trial, _ in chosen.values() if trial.key in known}
    for name, future in futures.items():
        if future is None:
            continue
        trial, first = chosen[name]
        try:
            again = Outcome.from_json(future.result(patience))
        except NotInTime:
            engine.stop_fresh()
        except Exception:  # it may fail where it did not before, and that is no difference in its numbers
            continue
        else:
            same = _equal(first, again, TOLERANCE if isinstance(plan.task, Loop) else 0.0)
            scores = {"metric": _score(first), "again": _score(again)}
            results[trial.key] = {"entry": name, "seed": trial.seed, "same": same, **scores}
    return results


def _choose(plan: Plan, form: Form, seconds: float) -> list[str]:
    """The user-supplied optimizers, or any if the task alone is a user's, as many as the time allows."""
    if form.device != "cpu":  # other devices need not repeat to the bit
        return []
    names = _users_entries(plan)
    if not names and _is_users_task(plan.task):
        names = [plan.entries[-1].name]
    slower = ALONE if form.stacked else 1.0
    return names[: max(int(SHARE * plan.runs / slower), int(seconds * slower < SHORT))]


def _users_entries(plan: Plan) -> list[str]:
    return [entry.name for entry in plan.entries if isinstance(entry.rule, Anyone) and _is_users(entry.rule.make)]


def _is_users_task(task: Problem) -> bool:
    if not isinstance(task, Task):
        return True
    return any(map(_is_users, (task.model, task.loss, task.metric.score, task.data)))


def _is_users(thing: Any) -> bool:
    while isinstance(thing, partial):
        thing = thing.func
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return str(module).partition(".")[0] not in NOT_THE_USERS


def _score(outcome: Outcome) -> float | None:
    """The test metric; None where the run diverged."""
    return outcome.test_metric if outcome.diverged is None else None


def _repeat(task: Problem, trial: Trial, form: Form) -> str:
    return train(task, [trial], form, lambda share: None)[0].to_json()


def _equal(first: Outcome, again: Outcome, tolerance: float) -> bool:
    def numbers(outcome: Outcome) -> list[float | None]:
        points = [x for point in outcome.curve for x in point]
        return [*points, outcome.test_loss, outcome.test_metric, *(outcome.test_parts or ())]

    a, b = numbers(first), numbers(again)
    if tolerance == 0 or len(a) != len(b):
        return json.dumps([a, first.diverged]) == json.dumps([b, again.diverged])
    return all(
        x == y if x is None or y is None else math.isclose(x, y, rel_tol=tolerance) or (x != x and y != y)
        for x, y in zip(a, b, strict=True)
    )
