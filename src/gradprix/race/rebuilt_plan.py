"""Reconstruction of a plan from its description and setup, and of the tasks and optimizers that it names."""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from gradprix import optim
from gradprix.rules import Rule
from gradprix.tasks import Task, find
from gradprix.tasks.loop import Problem, is_training_loop
from gradprix.tasks.registry import import_object

from .absent_code import AbsentOptimizer, make_absent_task
from .config import as_problem
from .entry import Entry, as_steppable
from .entry_registry import resolve_entries
from .plan import Plan
from .setup import EntrySetup, Setup, decode, decode_axis

TRUSTED = ("gradprix.rules", "gradprix.optim", "torch.optim")
"""Packages whose rules and optimizers are used without consent to run code."""


class CodeNotLoadedError(ValueError):
    """Raised if a plan needs code that is not part of gradprix, and that may not be run or is not known.

    Args:
        message: what needs the code.
        is_known: True if the location of the code is known.
    """

    def __init__(self, message: str, is_known: bool = True) -> None:
        super().__init__(message)
        self.is_known = is_known


def rebuild_plan(description: Mapping[str, Any], setup: Setup, code: "CodeFolder | None" = None) -> Plan:
    """Return the plan with a description, with stand-ins for tasks and for optimizers that are not part of gradprix.

    Args:
        description: description of the plan; see `Plan.description`.
        setup: what else is known of the plan.
        code: the user's code, which is needed for rules of the user; None does not run it.

    Raises:
        CodeNotLoadedError: if an entry has a rule of the user, and `code` is None.
        ValueError: if the description or the setup has an impossible value.
        LookupError: if a value is missing.
        TypeError: if a value has another type.
    """
    plan = Plan(
        make_absent_task(description, setup.task),
        tuple(_rebuild_entry(entry, _find_stand_in(entry, code)) for entry in setup.entries),
        **{name: description[name] for name in ("trials", "seeds", "seed", "compiled", "baseline", "device")},
        left_out=tuple(setup.left_out),
    )
    # Runs of this plan are those of the versions that it was raced with.
    vars(plan)["description"] = {**plan.description, "versions": description["versions"]}
    return plan


def _rebuild_entry(setup: EntrySetup, rule: Any) -> Entry:
    return Entry(
        setup.name,
        rule,
        {name: decode(value) for name, value in setup.fixed.items()},
        {name: decode_axis(axis) for name, axis in setup.space.items()},
        **{
            name: getattr(setup, name)
            for name in ("batch_size", "offset", "replicate", "about", "schedule", "closure", "sam_rho")
        },
    )


def _find_stand_in(entry: EntrySetup, code: "CodeFolder | None") -> Any:
    """Return the optimizer of an entry if it is part of gradprix, otherwise a stand-in, or a rule from the code."""
    if entry.interface is not None:
        return AbsentOptimizer.from_interface(entry.interface)
    return find_optimizer(entry, code)


def find_optimizer(entry: EntrySetup, code: "CodeFolder | None") -> Any:
    """Return the optimizer of an entry.

    Raises:
        CodeNotLoadedError: if it is not part of gradprix, and `code` is None, or its location is not known.
        ValueError: if it does not exist.
    """
    location = entry.location
    if location is None:
        raise CodeNotLoadedError(f"the code of the optimizer of {entry.name} is not known.", is_known=False)
    module, _, name = location.rpartition(":")
    if any(f"{module}.".startswith(f"{package}.") for package in TRUSTED):
        return _find_trusted(module, name)
    if ":" not in location:
        return resolve_entries(location)[0].rule
    if code is None:
        raise CodeNotLoadedError(f"the optimizer of {entry.name} is not part of gradprix: {location}.")
    loaded = code.load(location)
    return loaded.rule if isinstance(loaded, Entry) else loaded


def _find_trusted(module: str, name: str) -> Any:
    """Return a rule or optimizer class of gradprix or torch. Other objects of these packages could do harm.

    Raises:
        ValueError: if there is no such rule or class.
    """
    try:
        thing = getattr(import_module(module), name)
    except (ImportError, AttributeError):
        thing = None
    if not (isinstance(thing, Rule) or (isinstance(thing, type) and issubclass(thing, torch.optim.Optimizer))):
        raise ValueError(f"there is no optimizer {module}.{name} here.")
    return thing


def find_task(plan: Plan, setup: Setup, code: "CodeFolder | None", data: Path | None = None) -> Problem:
    """Return the task of a plan, with its settings.

    Args:
        plan: the rebuilt plan, whose task is a stand-in.
        setup: what else is known of the plan.
        code: the user's code; None does not run it.
        data: local copy of a built-in task's data.

    Raises:
        CodeNotLoadedError: if the task is not part of gradprix, and `code` is None, or its location is not known.
        ValueError: if the task does not exist or cannot be loaded.
    """
    where = setup.task.location
    if where is None:
        raise CodeNotLoadedError("the task was an object of a program.", is_known=False)
    if setup.task.is_built_in:
        return with_settings(find(where, setup.task.preset, data), plan)
    if code is None:
        raise CodeNotLoadedError(f"the task is not part of gradprix: {where}.")
    return with_settings(code.load(where), plan)


def with_settings(given: Any, plan: Plan) -> Problem:
    """Return a task or training loop with the settings of a plan.

    Args:
        given: task, function that returns one, or training loop.
        plan: plan with the settings.

    Raises:
        ValueError: if it is no task.
    """
    task, metric = plan.task, plan.task.metric
    is_loop = callable(given) and not isinstance(given, Task) and is_training_loop(given)
    direction = ("max" if metric.higher_is_better else "min") if is_loop else None
    problem = as_problem(given, direction, None)
    own = replace(problem.metric, margin=metric.margin, relative=metric.relative)
    settings = (
        {}
        if is_loop or not isinstance(problem, Task)
        else {name: getattr(task, name) for name in ("epochs", "batch_size", "schedule")}
    )
    return problem.change(metric=own, **settings)


def same_code(entry: Entry, stand_in: Entry, plan: Plan) -> bool:
    """Return True if an optimizer has the equations or the code of the entry that it shall stand for."""
    mine, saved = (plan.careful_trial(each, 0).identity for each in (entry, stand_in))
    return all(mine.get(name) == saved.get(name) for name in ("equations", "state", "code", "values"))


def as_entry(rule: Any, stand_in: Entry) -> Entry:
    """Return an entry with another optimizer."""
    steppable = as_steppable(rule)
    if isinstance(steppable, Rule) and not isinstance(stand_in.rule, Rule):
        steppable = as_steppable(optim.from_rule(steppable))
    return replace(stand_in, rule=steppable)


class CodeFolder:
    """Temporary folder with the code of a bundle; a context manager.

    Args:
        files: source code by path; see `Setup.code`.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = files
        self.folder = tempfile.TemporaryDirectory(prefix="gradprix-code-", ignore_cleanup_errors=True)
        self.path: list[str] = []

    def __enter__(self) -> "CodeFolder":
        self.path = list(sys.path)
        for name, text in self.files.items():
            file = Path(self.folder.name, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text.encode(errors="surrogateescape"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.path[:] = self.path
        self.folder.cleanup()

    def load(self, location: str) -> Any:
        """Import an object from the code, or from an installed package.

        Raises:
            ValueError: if it does not exist, or its module cannot be loaded.
        """
        folder, slash, place = location.partition("/")
        if not slash:
            return import_object(location)
        root = Path(self.folder.name, folder)
        if place.rpartition(":")[0].endswith(".py"):
            return import_object(f"{root / place}")
        if str(root) not in sys.path:
            sys.path.insert(0, str(root))
        return import_object(place)
