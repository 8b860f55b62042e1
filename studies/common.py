"""Tasks and helpers of the studies that run whole races."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gradprix.executors.executor import Executor
from gradprix.race import SEEDS, TRIALS
from gradprix.tasks import find
from gradprix.tasks.task import Task
from gradprix.training.trial import Outcome, Trial
from gradprix.utils.run_info import describe_run

TASKS: dict[str, str | None] = {"digits": None, "charlm": "small", "diamonds": "small"}
"""Tasks of three kinds, classification, language modelling and regression, with the preset of each."""


def find_task(name: str) -> Task:
    """Return one of the tasks, with the default numbers of trials and seeds: small presets have fewer."""
    return find(name, TASKS[name], None).change(trials=TRIALS, seeds=SEEDS)


def train(engine: Executor, task: Task, trials: Iterable[Trial]) -> dict[str, Outcome]:
    """Train models outside a race; return the outcome of each trial by its key."""
    outcomes = {}
    for stack, results in engine.run(task, list(trials), lambda share: None):
        outcomes |= {trial.key: outcome for trial, outcome in zip(stack, results, strict=True)}
    return outcomes


def write(file: Path, results: dict[str, Any]) -> None:
    """Write the results of a study, with its command, date, machine, versions and duration."""
    header = describe_run(" ".join(["python", f"studies/{file.stem}.py", *sys.argv[1:]]))
    file.write_text(json.dumps({**header, **results}, indent=1, ensure_ascii=False) + "\n")
