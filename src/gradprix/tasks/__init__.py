"""Tasks with real data: model, data, loss and metric."""

from .archives import DataError, fetch
from .builtin.digits import accuracy, digits
from .data import Data, Split
from .loop import Loop
from .parameter_groups import no_decay_norms
from .registry import ALL, UnknownNameError, built_in, find
from .schedules import schedule
from .task import Metric, Task

__all__ = [
    "ALL",
    "Data",
    "DataError",
    "Loop",
    "Metric",
    "Split",
    "Task",
    "UnknownNameError",
    "accuracy",
    "built_in",
    "digits",
    "fetch",
    "find",
    "no_decay_norms",
    "schedule",
]
