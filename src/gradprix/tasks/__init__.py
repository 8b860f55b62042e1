"""Problems with real data: a task is model, data, loss and metric."""

from ._archives import DataError, fetch
from ._data import Data, Split
from ._digits import accuracy, digits
from ._loop import Loop
from ._named import ALL, UnknownNameError, built_in, find
from ._schedule import schedule
from ._task import Metric, Task

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
    "schedule",
]
