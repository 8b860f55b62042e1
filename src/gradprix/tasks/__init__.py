"""Problems with real data: a task is model, data, loss and metric."""

from ._data import Data, Split
from ._digits import accuracy, digits
from ._loop import Loop
from ._named import ALL, UnknownNameError, find
from ._schedule import schedule
from ._task import Metric, Task

__all__ = [
    "ALL",
    "Data",
    "Loop",
    "Metric",
    "Split",
    "Task",
    "UnknownNameError",
    "accuracy",
    "digits",
    "find",
    "schedule",
]
