"""How the learning rate goes over a run."""

import math
from collections.abc import Callable

WARM_UP = 0.05
"""The share of the steps over which the rate rises to its full value."""

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
    "warmup": lambda done: 1.0,
}
"""What is left of the rate when the share `done` of the steps after warm-up is done."""


def passes(epochs: float) -> int:
    """Return how often a run goes through its training examples: at least once, be it through a part of them."""
    return max(1, math.ceil(epochs))


def examples_a_pass(count: int, epochs: float) -> int:
    """Return how many training examples a pass has: all, or the part that is less than one epoch.

    Args:
        count: all training examples.
        epochs: of a run.
    """
    return count if epochs >= 1 else max(1, round(epochs * count))


def count_steps(count: int, batch_size: int, epochs: float) -> int:
    """Return how many steps a run has.

    Args:
        count: all training examples.
        batch_size: examples a step; 0 for all of a pass.
        epochs: of the run; a number below 1 is a part of an epoch.
    """
    each = examples_a_pass(count, epochs)
    return passes(epochs) * -(-each // (batch_size or each))


def schedule(name: str, steps: int) -> Callable[[int], float]:
    """The factor on the learning rate, for `torch.optim.lr_scheduler.LambdaLR` or a race.

    All but the constant one rise over the first 5 % of the steps; cosine and linear then fall, to zero after the last.

    Args:
        name: `"cosine"`, `"linear"`, `"warmup"` or `"constant"`.
        steps: how many steps the run has.

    Returns:
        `factor(step)` for steps counted from 0.

    Raises:
        ValueError: for another name, or no steps.
    """
    if name not in SCHEDULES or steps < 1:
        raise ValueError(f"schedule({name!r}, {steps}): give one of {', '.join(SCHEDULES)}, and 1 step or more.")
    left = SCHEDULES[name]
    warm = 0 if name == "constant" else round(WARM_UP * steps)

    def factor(step: int) -> float:
        return (step + 1) / (warm + 1) if step < warm else left(min(1.0, (step - warm) / (steps - warm)))

    return factor
