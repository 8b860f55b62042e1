"""Replication of final runs, each alone in a new process, to detect user code that carries over state between runs."""

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
from .run_comparison import compare_runs
from .run_records import Rerun

REPEATED_SHARE = 0.05
"""Maximum training time of the replications, as a fraction of the training time of the race."""
SEQUENTIAL_SLOWDOWN = 6.0
"""Approximate factor by which a model trains more slowly alone than in a stack."""
SHORT_RUN = 2.0
"""Maximum duration, in seconds, of a run that is replicated in any race. In races with few runs, `REPEATED_SHARE` alone
would not allow any replication."""
MIN_TIMEOUT = 20.0
"""Minimum timeout of a replication in seconds. Its process must load the data again."""
LOOP_TOLERANCE = 1e-3
"""Relative tolerance of the comparison for custom training loops, which need not be deterministic."""
NOT_THE_USERS = {"gradprix", "torch"}
"""Top-level packages whose code is not user code."""


def prepare(plan: Plan, mode: ExecutionMode, engine: Executor) -> None:
    """Start the process for replications during the final runs, so that it is ready after them.

    Nothing is done if the race has no user-supplied code.
    """
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
    """Repeat some final runs, each alone in a new process, and compare the outcomes.

    Args:
        plan: plan of the race.
        mode: execution mode of the race.
        engine: executor of the race.
        finals: final runs of each entry.
        seconds: approximate duration of a run on one worker.
        patience: timeout of each replication in seconds.
        known: replications from earlier calls for this race, by the key of the trial.

    Returns:
        The replications by the key of the trial. Replications that failed or timed out are omitted.
    """
    # Runs with the last seed are repeated, because most other runs preceded them.
    chosen = {name: finals[name][-1] for name in _choose_entries(plan, mode, seconds)}
    futures = {
        name: engine.submit_fresh(_repeat, plan.task, trial, mode)
        for name, (trial, outcome) in chosen.items()
        if trial.key not in known and outcome.error is None
    }
    # How many are chosen depends on times. Earlier replications remain part of the record of a resumed race.
    last = [runs[-1][0].key for runs in finals.values()]
    results = {key: known[key] for key in last if key in known}
    for name, future in futures.items():
        if future is None:
            continue
        trial, first = chosen[name]
        try:
            again = Outcome.from_json(future.result(patience))
        except NotInTime:
            engine.stop_fresh()
        except Exception:  # a failure is no evidence of a different outcome
            continue
        else:
            same = not compare_runs(first, again, LOOP_TOLERANCE if isinstance(plan.task, Loop) else 0.0)
            results[trial.key] = Rerun(
                entry=name, seed=trial.seed, same=same, metric=_score(first), again=_score(again)
            )
    return results


def _choose_entries(plan: Plan, mode: ExecutionMode, seconds: float) -> list[str]:
    """Return the names of the entries of which a final run is repeated.

    These are the entries with user-supplied optimizers, or any one entry if only the task is user-supplied. Their
    number is limited by the training time that replications may take.

    Args:
        plan: plan of the race.
        mode: execution mode of the race.
        seconds: approximate duration of a run on one worker.
    """
    if mode.device != "cpu":  # other devices are not bitwise reproducible
        return []
    names = _user_entries(plan)
    if not names and _is_user_task(plan.task):
        names = [plan.entries[-1].name]
    slowdown = SEQUENTIAL_SLOWDOWN if mode.stacked else 1.0
    return names[: max(int(REPEATED_SHARE * plan.runs / slowdown), int(seconds * slowdown < SHORT_RUN))]


def _user_entries(plan: Plan) -> list[str]:
    """Return the names of the entries with user-supplied optimizers."""
    return [
        entry.name
        for entry in plan.entries
        if isinstance(entry.rule, TorchOptimizerAdapter) and _is_user_code(entry.rule.make)
    ]


def _is_user_task(task: Problem) -> bool:
    """Return True if any function of a task is user-supplied."""
    if not isinstance(task, Task):
        return True
    return any(map(_is_user_code, (task.model, task.loss, task.metric.score, task.data)))


def _is_user_code(thing: Any) -> bool:
    """Return True if a function or class is defined outside of gradprix and torch."""
    while isinstance(thing, partial):
        thing = thing.func
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return str(module).partition(".")[0] not in NOT_THE_USERS


def _score(outcome: Outcome) -> float | None:
    """Return the test metric of a run, or None if it diverged."""
    return outcome.test_metric if outcome.diverged is None else None


def _repeat(task: Problem, trial: Trial, mode: ExecutionMode) -> str:
    """Run a trial alone, and return its outcome as JSON. This is called in the new process."""
    return train(task, [trial], mode, lambda share: None)[0].to_json()
