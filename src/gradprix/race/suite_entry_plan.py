"""Plan of a comparison of one optimizer with the published suite on a task."""

import platform
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from gradprix.rules.modifiers import split_names
from gradprix.tasks import Task, find
from gradprix.training.trial import Trial
from gradprix.utils.run_info import cpu_model

from .control import CONTROL_SEEDS, control_entries
from .entry import Entry
from .entry_registry import resolve_entries
from .plan import Plan, RacePhase
from .published_task import PublishedEntry, PublishedError, PublishedTask, load_published
from .record_json import to_json
from .suite_runner import choose_tasks

NEW_LABEL = "{} (new)"
"""Template of the name of an optimizer that has the name of a published one."""


@dataclass(frozen=True, kw_only=True)
class SuiteEntryPlan(Plan):
    """Plan of tuning and running one optimizer by the protocol of the published suite.

    Args:
        published: published final runs of the task.
        label: name of the optimizer among the published ones.

    Raises:
        PublishedError: if the task differs from the published one.
    """

    published: PublishedTask
    label: str

    def __post_init__(self) -> None:
        super().__post_init__()
        assert isinstance(self.task, Task)  # built-in problems are tasks
        _check_task(self.task, self.published)

    @property
    def entry(self) -> Entry:
        """Entry of the new optimizer."""
        return self.entries[0]

    @cached_property
    def control(self) -> dict[str, list[Trial]]:
        """Published final runs to repeat, by name of the entry; see `gradprix.race.control`."""
        control = {}
        for each in control_entries(self.published):
            entry = published_entry(each)
            control[each.name] = [self.final_trial(entry, each.tuned, seed) for seed in range(CONTROL_SEEDS)]
        return control

    @property
    def control_runs(self) -> int:
        """Number of published final runs to repeat."""
        return sum(map(len, self.control.values()))

    @property
    def quarter_runs(self) -> dict[str, int]:
        """Empty: nothing is published about smaller budgets."""
        return {}

    @property
    def phases(self) -> list[RacePhase]:
        """Phases: the control, tuning, and the final runs."""
        return [RacePhase("control", {self.entry.name: self.control_runs}), *super().phases]

    @property
    def runs(self) -> int:
        """Number of training runs."""
        return super().runs + self.control_runs


def published_entry(published: PublishedEntry) -> Entry:
    """Return a published optimizer as the entry of a race."""
    return replace(resolve_entries(published.name)[0], schedule=published.schedule)


def suite_entry_plans(
    entry: str | Entry,
    tasks: str | Iterable[str] | None = None,
    published: Iterable[PublishedTask] | None = None,
    device: str | None = None,
) -> list[SuiteEntryPlan]:
    """Return the plans of comparing one optimizer with the published suite, one for each task.

    Args:
        entry: the optimizer, as in `gradprix.race`: an entry, a name, or a location such as `"mine.py:MyOpt"`.
        tasks: names of tasks, as a list or separated by commas. Default: all published tasks.
        published: published tasks. Default: those that are distributed with the package.
        device: device of the models; see `gradprix.race`.

    Raises:
        UnknownNameError: if a task or the optimizer is unknown.
        PublishedError: if a task differs from the published one.
        ValueError: if there are no tasks, or not exactly one optimizer.
    """
    known = load_published() if published is None else {task.task: task for task in published}
    names = choose_tasks(tasks, known, "task of the published suite")
    given = split_names(entry) if isinstance(entry, str) else [entry]
    entries = resolve_entries(given[0]) if len(given) == 1 else []
    if len(entries) != 1:
        raise ValueError(f"entry = {entry}: give one optimizer, such as mine.py:MyOpt.")
    label = entries[0].name
    if any(label in task.values for task in known.values()):
        label = NEW_LABEL.format(label)
    return [
        SuiteEntryPlan(
            find(name),
            (entries[0],),
            trials=known[name].trials,
            seeds=known[name].seeds,
            seed=known[name].seed,
            device=device or "auto",
            published=known[name],
            label=label,
        )
        for name in names
    ]


def _check_task(task: Task, published: PublishedTask) -> None:
    """Raise `PublishedError` unless a task has the fingerprint and the settings of a published one.

    A fingerprint contains bytecode and initial weights, which depend on Python, libraries and CPU. Where these differ,
    only the settings are compared here, and the data by the control.
    """
    metric = {key: value for key, value in vars(task.metric).items() if key != "score"}
    pairs = {
        "metric": (metric, to_json(published.metric)),
        **{name: (getattr(task, name), getattr(published, name)) for name in ("epochs", "batch_size", "schedule")},
        "options": (task.options, published.options),
    }
    changed = [f"{name} {was} there, {now} here" for name, (now, was) in pairs.items() if now != was]
    if not changed and _is_same_platform(published) and task.fingerprint != published.fingerprint:
        changed = ["another fingerprint: its model, loss, metric or data differ"]
    if changed:
        raise PublishedError(
            f"the task {published.task} is not that of the published suite ({'; '.join(changed)}), so its runs cannot "
            "be compared. The published runs belong to this version of gradprix and its packaged data."
        )


def _is_same_platform(published: PublishedTask) -> bool:
    """Return True if the fingerprint of an unchanged task must be the published one."""
    here = {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
    there = {**here, **published.versions}
    is_same_python = here["python"].split(".")[:2] == there["python"].split(".")[:2]
    is_same_library = all(here[name] == there[name] for name in ("torch", "numpy"))
    return is_same_python and is_same_library and published.machine.get("cpu", cpu_model()) == cpu_model()
