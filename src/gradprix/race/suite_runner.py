"""Suites: races of the same optimizers on several tasks."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from gradprix.executors.executor import Executor
from gradprix.integrations.loggers import make_loggers
from gradprix.tasks import ALL, UnknownNameError

from .config import make_plan
from .entry import Entry
from .live_files import TaskProgress, Watch
from .plan import Plan
from .protocol import run
from .record import RaceRecord
from .suite_record import SuiteSummary
from .suite_summary import summed_up

ENTRIES_OF_A_SUITE = (
    "minibatch",
    "momentum",
    "nesterov",
    "adagrad",
    "rmsprop",
    "adadelta",
    "adam",
    "adamw",
    "adamax",
    "nadam",
)
"""Names of the default entries of a suite: classic optimizers at one batch size."""
MODERN_ENTRIES = (
    "muon",
    "lion",
    "adopt",
    "ademamix",
    "schedule_free_adamw",
    "ema(adamw)",
    "prodigy",
    "soap",
)
"""Names of the newer entries of the published suite (`studies/suite.py`), which it races beside the classic ones."""
SLOW_TASKS = {"soap": ("sentiment", "segment", "translate", "charlm", "generate", "generate-vae")}
"""Entries that the published suite leaves out of some tasks, because a step takes too long there, with these tasks."""


def suite_plans(
    tasks: str | Iterable[str] | None = None, optimizers: str | Iterable[str | Entry] | None = None, **budget: Any
) -> list[Plan]:
    """Return the plans of a suite, one for each task.

    Args:
        tasks: names of built-in tasks, as a list or separated by commas. Default: all built-in tasks.
        optimizers: entries of each race, as in `race`. Default: `ENTRIES_OF_A_SUITE`.
        budget: `preset`, `trials`, `seeds` and `seed`, as in `race`.

    Raises:
        UnknownNameError: if a task is not built in.
        ValueError: if there are no tasks, or a value is out of range; see `race`.
    """
    names = choose_tasks(tasks, ALL, "task")
    return [make_plan(name, optimizers or ENTRIES_OF_A_SUITE, **budget) for name in names]


def choose_tasks(tasks: str | Iterable[str] | None, known: Collection[str], kind: str) -> list[str]:
    """Return the names of the chosen tasks, each once.

    Args:
        tasks: names, as a list or separated by commas. None selects all known tasks.
        known: names of the known tasks.
        kind: what the names stand for, for error messages.

    Raises:
        UnknownNameError: if a name is unknown.
        ValueError: if there are no names.

    Example:
        >>> choose_tasks("digits, mnist,digits", ["digits", "mnist", "tailed"], "task")
        ['digits', 'mnist']
    """
    if tasks is None:
        return list(known)
    given = [name.strip() for name in tasks.split(",")] if isinstance(tasks, str) else list(tasks)
    for name in given:
        if name not in known:
            raise UnknownNameError(kind, name, known)
    if not given:
        raise ValueError(f"no tasks are given: choose from {', '.join(known)}.")
    return list(dict.fromkeys(given))


def published_entries(task: str) -> list[str]:
    """Return the names of the entries of the published suite on a task: `ENTRIES_OF_A_SUITE`, then `MODERN_ENTRIES`.

    Example:
        >>> [entry for entry in published_entries("digits") if entry not in published_entries("charlm")]
        ['soap']
    """
    return [name for name in (*ENTRIES_OF_A_SUITE, *MODERN_ENTRIES) if task not in SLOW_TASKS.get(name, ())]


def suite(
    plans: Sequence[Plan],
    out: Path,
    engine: Executor,
    watch: Watch = lambda *_: None,
    log: Sequence[str] = (),
) -> SuiteSummary:
    """Run the races of a suite, each saved in a folder of its own, and summarize the results.

    Finished runs are reused. Races run one after the other. On a cluster they run concurrently, so that no worker is
    idle at the end of a race.

    Args:
        plans: plan of each race.
        out: parent folder of the folders of the races.
        engine: executor of the training runs.
        watch: progress callback.
        log: names of the loggers of each race, as in `race`.

    Raises:
        ValueError: if a race fails; see `run`.
    """
    progress = TaskProgress(sum(plan.runs for plan in plans), watch)

    def race(plan: Plan) -> RaceRecord:
        name = plan.task.name
        return run(plan, out / name, engine, progress.watch_task(name), make_loggers(log)).record

    for plan in plans:
        assert plan.task.fingerprint  # before threads start, because it uses torch's global generator
    return summed_up(dict(zip((plan.task.name for plan in plans), engine.map_concurrently(race, plans), strict=True)))
