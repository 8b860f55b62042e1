"""Learning-rate schedules."""

import math
from collections.abc import Callable

WARM_UP = 0.05
"""Share of the steps over which the learning rate rises to its full value."""

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
    "warmup": lambda done: 1.0,
}
"""Factor on the learning rate when the share `done` of the steps after warm-up is done."""


def passes(epochs: float) -> int:
    """Return the number of passes over the training examples, at least one, even if it is partial."""
    return max(1, math.ceil(epochs))


def examples_a_pass(count: int, epochs: float) -> int:
    """Return the number of training examples per pass: all, or a part for less than one epoch.

    Args:
        count: all training examples.
        epochs: epochs of the run.
    """
    return count if epochs >= 1 else max(1, round(epochs * count))


def count_steps(count: int, batch_size: int, epochs: float) -> int:
    """Return the number of steps of a run.

    Args:
        count: all training examples.
        batch_size: examples per step; 0 for full batches.
        epochs: epochs of the run; a number below 1 is a part of an epoch.
    """
    each = examples_a_pass(count, epochs)
    return passes(epochs) * -(-each // (batch_size or each))


def schedule(name: str, steps: int) -> Callable[[int], float]:
    """Return the factor on the learning rate, for `torch.optim.lr_scheduler.LambdaLR` or a race.

    All but the constant one rise over the first 5 % of the steps; cosine and linear then decay to zero after the last.

    Args:
        name: `"cosine"`, `"linear"`, `"warmup"` or `"constant"`.
        steps: number of steps of the run.

    Returns:
        `factor(step)` for steps counted from 0.

    Raises:
        ValueError: for another name, or less than one step.
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
