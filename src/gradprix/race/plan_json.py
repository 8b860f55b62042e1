"""JSON form of a plan, whose hash identifies the plan."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradprix import __version__
from gradprix.rules import Axis, Choice, Log
from gradprix.tasks import Task
from gradprix.tasks.loop import Loop
from gradprix.text.plan import format_omission
from gradprix.tuning.learning_rate_grid import grid_bounds, grid_learning_rate

from .entry import Entry

if TYPE_CHECKING:
    from .plan import Plan


def describe_plan(plan: "Plan") -> dict[str, Any]:
    """Return a plan as JSON-compatible dictionary; see `Plan.description`."""
    task = plan.task
    return {
        "task": task.name,
        "fingerprint": task.fingerprint,
        "metric": {k: v for k, v in vars(task.metric).items() if k != "score"},
        "baseline": plan.baseline,
        "trivial": task.baseline,
        "epochs": task.epochs,
        "examples": plan.examples,
        "batch_size": task.batch_size,
        "schedule": task.schedule,
        **({"options": task.options} if isinstance(task, Task) and task.options else {}),
        "loop": isinstance(task, Loop),
        "tune": plan.tuned,
        "trials": plan.trials,
        "seeds": plan.seeds,
        "seed": plan.seed,
        "compiled": plan.compiled,
        "device": plan.device,
        "left_out": [format_omission(omission) for omission in plan.left_out],
        "versions": {"gradprix": __version__, "torch": str(torch.__version__), "numpy": np.__version__},
        "entries": [_describe_entry(plan, entry) for entry in plan.entries],
    }


def _describe_entry(plan: "Plan", entry: Entry) -> Mapping[str, Any]:
    trial = plan.careful_trial(entry, 0)
    return {
        "name": entry.name,
        "optimizer": entry.optimizer,
        "rule": entry.rule.name,
        **{key: trial.identity[key] for key in ("equations", "class", "code", "version") if key in trial.identity},
        "fixed": {name: _plain(value) for name, value in entry.fixed.items()},
        "space": {name: _range(entry, axis) for name, axis in entry.space.items()},
        "batch_size": plan.batch_size(entry),
        **{name: value for name in ("schedule", "sam_rho") if (value := getattr(entry, name)) is not None},
        "updates": plan.updates(entry),
        "offset": entry.offset,
        "luck": entry.replicate,
    }


def _range(entry: Entry, axis: Axis) -> list[Any]:
    """Return the lowest and the highest value of a hyperparameter's search range, or all values of a choice."""
    if isinstance(axis, Choice):
        return [_plain(value) for value in axis.values]
    if isinstance(axis, Log) and list(entry.space) == ["lr"]:
        return [grid_learning_rate(bound, entry.offset) for bound in grid_bounds(axis)]
    return sorted((axis.from_unit(0.0), axis.from_unit(1.0)))


def _plain(value: Any) -> Any:
    """Return a value that JSON can represent."""
    return value if isinstance(value, int | float | str | None) else repr(value)
