"""Problems with real data: a task is model, data, loss and metric."""

from ._data import Data, Split
from ._digits import accuracy, digits
from ._schedule import schedule
from ._task import Metric, Task

ALL: dict[str, Task] = {task.name: task for task in (digits,)}

__all__ = ["ALL", "Data", "Metric", "Split", "Task", "accuracy", "digits", "schedule"]
