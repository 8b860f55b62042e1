"""Whether a task can be raced, found out in a moment, before the race."""

import math

from ._lane import Lane, one_thread
from ._plan import Plan

EXAMPLES = 64
UNSTACKED = {
    "random operation": "it draws random numbers (Dropout?), which a stack of networks does not do yet",
    "data-dependent control flow": "its course depends on values in the data, so networks cannot go together",
    "Batching rule not implemented": "it has an operation that torch cannot stack yet (LSTM and GRU are such)",
}
"""What torch's messages mean, for a user."""


class TaskError(ValueError):
    """A task that cannot be raced; the message says what is wrong with it."""


def check(plan: Plan) -> None:
    """Train two networks of the task for one step and score them on a few examples.

    Raises:
        TaskError: when the model, the loss or the metric does not work, or works only for one network at a time.
    """
    task = plan.task
    entry = plan.entries[0]
    trials = [plan.tuning_trial(entry, -12, seed) for seed in range(2)]
    try:
        with one_thread():
            lane = Lane(task, trials)
            lane.step(lane.examples.train[:, : min(EXAMPLES, trials[0].batch_size or EXAMPLES)], 1.0)
            _, metrics = lane.evaluate(lane.examples.valid[:, :EXAMPLES])
    except Exception as error:
        known = (meaning for words, meaning in UNSTACKED.items() if words in str(error))
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise TaskError(f"task {task.name!r} cannot be raced: {next(known, first)}.") from error
    if not all(math.isfinite(metric) for metric in metrics):
        raise TaskError(f"task {task.name!r} cannot be raced: its metric is {metrics[0]}, not a finite number.")
