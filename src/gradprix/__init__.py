"""Use, race and explain optimizers: which one should train your model, and why?

Use, race and explain the whole family of neural-network optimizers:

    import gradprix as gp
    result = gp.race("digits")
    optimizer = result.best.make(model.parameters())
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Subpackage of each public name. Names are imported on first use, so that `import gradprix` takes no time.
_HOME = {
    "Data": "tasks",
    "Entry": "race",
    "Loop": "tasks",
    "Metric": "tasks",
    "Result": "race",
    "Rule": "rules",
    "State": "rules",
    "Task": "tasks",
    "TuneResult": "race",
    "choice": "rules",
    "enter_suite": "race",
    "load": "race",
    "log": "rules",
    "one_minus": "rules",
    "rule": "rules",
    "schedule": "tasks",
    "tune": "race",
    "verify": "race",
}

__all__ = [
    "Data",
    "Entry",
    "Loop",
    "Metric",
    "Result",
    "Rule",
    "State",
    "Task",
    "TuneResult",
    "choice",
    "engines",
    "enter_suite",
    "explain",
    "integrations",
    "kernels",
    "load",
    "log",
    "one_minus",
    "optim",
    "race",
    "rule",
    "rules",
    "schedule",
    "show",
    "tasks",
    "tune",
    "verify",
]

if TYPE_CHECKING:
    from . import engines, explain, integrations, kernels, optim, rules, show, tasks
    from .race import Entry, Result, TuneResult, enter_suite, load, race, tune, verify
    from .rules import Rule, State, choice, log, one_minus, rule
    from .tasks import Data, Loop, Metric, Task, schedule


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"gradprix.{_HOME[name]}"), name)
    if name in __all__:
        return import_module(f"gradprix.{name}")
    raise AttributeError(f"module 'gradprix' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
