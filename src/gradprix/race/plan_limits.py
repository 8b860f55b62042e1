"""Defaults and limits of a plan."""

from gradprix.stats.verdict import MOST_SEEDS
from gradprix.tuning import FEWEST_TWOFOLD
from gradprix.utils.devices import check_name

TRIALS = FEWEST_TWOFOLD
"""Default number of tuning trials per entry."""
SEEDS = 32
"""Default maximum number of final seeds."""
USUAL_CLIP_NORM = 1.0
"""Middle of the search range of gradient clipping on a task that does not clip."""
USUAL_SAM_RHO = 0.05
"""Usual radius of the neighbourhood of sharpness-aware minimization: the default of its paper."""
MAX_SEED = 99_999
"""Maximum base seed."""
FEWEST_STEPS = 8
"""Minimum number of steps of a run: with fewer, training makes no measurable progress."""
FEWEST_SEEDS = 6
"""Minimum number of final seeds. With n seeds no p-value is below 2^(1-n), so with fewer than six seeds no difference
can be significant at 5 %."""


def check_ranges(trials: int | None, seeds: int | None, seed: int, margin: float | None, device: str | None) -> None:
    """Check the values of a plan that do not depend on the task. Values that are None are not checked.

    Raises:
        ValueError: if a value is out of range.
    """
    if trials is not None and trials < 1:
        raise ValueError(
            f"trials = {trials}: each optimizer needs 1 tuning trial or more to select a learning rate; the default "
            f"is {TRIALS}."
        )
    if seeds is not None and seeds < FEWEST_SEEDS:
        raise ValueError(
            f"seeds = {seeds}: with fewer than {FEWEST_SEEDS} seeds no difference can be significant at 5 %, because "
            f"the smallest p-value is 2^(1 - seeds). Give {FEWEST_SEEDS} or more; the default is {SEEDS}."
        )
    for name, value in (("trials", trials), ("seeds", seeds)):
        if value is not None and value > MOST_SEEDS:
            raise ValueError(f"{name} = {value}: a race has at most {MOST_SEEDS} {name} per optimizer. Give fewer.")
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed = {seed}: the base seed must be from 0 to {MAX_SEED}.")
    if margin is not None and not margin >= 0:
        raise ValueError(f"margin = {margin}: the smallest difference that matters must be 0 or more.")
    if device is not None:
        check_name(device)
