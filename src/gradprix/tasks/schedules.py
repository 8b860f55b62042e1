"""Learning-rate schedules."""

import math
from collections.abc import Callable

WARM_UP = 0.05
"""Fraction of the steps over which the learning rate rises to its full value."""

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
    "warmup": lambda done: 1.0,
}
"""Factor on the learning rate after warm-up, as a function of the completed fraction of the remaining steps."""


def passes(epochs: float) -> int:
    """Return the number of passes over the training examples; a fraction of an epoch counts as one pass."""
    return max(1, math.ceil(epochs))


def examples_a_pass(count: int, epochs: float) -> int:
    """Return the number of training examples per pass: all for integer epochs, otherwise the same part in each pass.

    Args:
        count: all training examples.
        epochs: epochs of the run.
    """
    return max(1, round(epochs * count / passes(epochs)))


def shorten(epochs: float, share: float, count: int, batch_size: int) -> float:
    """Return the epochs of a run with a share of the examples, in passes of full batches of equal number.

    The number of batches of a pass is rounded, to one more where fewer would make up less than the number of passes.
    Runs of so few batches that none can be left out stay as they are.

    Args:
        epochs: epochs of the full run.
        share: share of its examples, at most 1.
        count: all training examples.
        batch_size: examples per step; 0 for full batches.
    """
    number, size = passes(epochs * share), batch_size or count
    batches = max(round(epochs * share / number * count / size), (number - 1) * count // (number * size) + 1)
    return min(epochs, number * min(1.0, batches * size / count))


def count_steps(count: int, batch_size: int, epochs: float) -> int:
    """Return the number of steps of a run.

    Args:
        count: all training examples.
        batch_size: examples per step; 0 for full batches.
        epochs: epochs of the run; those of part of the examples count as a part.
    """
    each = examples_a_pass(count, epochs)
    return passes(epochs) * -(-each // (batch_size or each))


def schedule(name: str, steps: int) -> Callable[[int], float]:
    """Return a learning-rate schedule as a function, for `torch.optim.lr_scheduler.LambdaLR` or a race.

    All schedules except `"constant"` rise linearly over the first 5 % of the steps. Then `"warmup"` stays constant, and
    `"cosine"` and `"linear"` decay so that they would reach zero one step after the last.

    Args:
        name: `"cosine"`, `"linear"`, `"warmup"` or `"constant"`.
        steps: number of steps of the run.

    Returns:
        Function `factor(step)` that returns the factor on the learning rate at a step, counted from 0.

    Raises:
        ValueError: if the name is unknown, or `steps` is less than 1.
    """
    if name not in SCHEDULES or steps < 1:
        raise ValueError(f"schedule({name!r}, {steps}): give one of {', '.join(SCHEDULES)}, and 1 step or more.")
    decay = SCHEDULES[name]
    warm_up_steps = 0 if name == "constant" else round(WARM_UP * steps)

    def factor(step: int) -> float:
        return (
            (step + 1) / (warm_up_steps + 1)
            if step < warm_up_steps
            else decay(min(1.0, (step - warm_up_steps) / (steps - warm_up_steps)))
        )

    return factor
