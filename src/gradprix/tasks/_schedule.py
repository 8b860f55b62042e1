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
