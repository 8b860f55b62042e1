"""Replication of final runs of user-supplied code, alone in a new process: detects state leaked between runs."""

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as NotInTime
from functools import partial
from typing import Any

from gradprix.executors.executor import Executor, train
from gradprix.tasks import Task
from gradprix.tasks.loop import Loop, Problem
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.torch_optimizer_adapter import TorchOptimizerAdapter
from gradprix.training.trial import Outcome, Trial

from .plan import Plan
from .run_records import Rerun

REPEATED_SHARE = 0.05
"""Fraction of a race's training that may be repeated."""
SEQUENTIAL_SLOWDOWN = 6.0
"""Approximate slowdown of a model outside a stack."""
SHORT_RUN = 2.0
"""Seconds of training that one replication may take in any race: small races have fewer than twenty runs."""
MIN_TIMEOUT = 20.0
"""Minimum timeout of a replication in seconds: its data must be loaded again."""
LOOP_TOLERANCE = 1e-3
"""Relative tolerance for training loops, which need not be deterministic."""
NOT_THE_USERS = {"gradprix", "torch"}


def prepare(plan: Plan, mode: ExecutionMode, engine: Executor) -> None:
    """Start the process for replications while the final runs are in progress."""
    if mode.device == "cpu" and (_user_entries(plan) or _is_user_task(plan.task)):
        engine.submit_fresh(int)


def repeat(
    plan: Plan,
    mode: ExecutionMode,
    engine: Executor,
    finals: Mapping[str, Sequence[tuple[Trial, Outcome]]],
    seconds: float,
    patience: float,
    known: Mapping[str, Rerun],
) -> dict[str, Rerun]:
    """Repeat final runs, each alone in a new process, and compare the outcomes.

    Args:
        plan: the race.
        mode: execution mode of the race.
        engine: the executor.
        finals: the final runs of each entry.
        seconds: approximate time of a run on one worker.
        patience: timeout of each replication in seconds.
        known: earlier replications of this race.

    Returns:
        For each trial key: entry, seed, both scores, and whether all numbers agree. Replications that failed or timed
        out are omitted.
    """
    # The last seed: most other runs came before it.
    chosen = {name: finals[name][-1] for name in _choose(plan, mode, seconds)}
    futures = {
        name: engine.submit_fresh(_repeat, plan.task, trial, mode)
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
        except Exception:  # a failed replication is no difference in the numbers
            continue
        else:
            same = _equal(first, again, LOOP_TOLERANCE if isinstance(plan.task, Loop) else 0.0)
            results[trial.key] = Rerun(
                entry=name, seed=trial.seed, same=same, metric=_score(first), again=_score(again)
            )
    return results


def _choose(plan: Plan, mode: ExecutionMode, seconds: float) -> list[str]:
    """Return the user-supplied optimizers, or any one if only the task is user-supplied, within the time limit."""
    if mode.device != "cpu":  # other devices are not bitwise reproducible
        return []
    names = _user_entries(plan)
    if not names and _is_user_task(plan.task):
        names = [plan.entries[-1].name]
    slowdown = SEQUENTIAL_SLOWDOWN if mode.stacked else 1.0
    return names[: max(int(REPEATED_SHARE * plan.runs / slowdown), int(seconds * slowdown < SHORT_RUN))]


def _user_entries(plan: Plan) -> list[str]:
    return [
        entry.name
        for entry in plan.entries
        if isinstance(entry.rule, TorchOptimizerAdapter) and _is_user_code(entry.rule.make)
    ]


def _is_user_task(task: Problem) -> bool:
    if not isinstance(task, Task):
        return True
    return any(map(_is_user_code, (task.model, task.loss, task.metric.score, task.data)))


def _is_user_code(thing: Any) -> bool:
    while isinstance(thing, partial):
        thing = thing.func
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return str(module).partition(".")[0] not in NOT_THE_USERS


def _score(outcome: Outcome) -> float | None:
    """Return the test metric; None if the run diverged."""
    return outcome.test_metric if outcome.diverged is None else None


def _repeat(task: Problem, trial: Trial, mode: ExecutionMode) -> str:
    return train(task, [trial], mode, lambda share: None)[0].to_json()


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
