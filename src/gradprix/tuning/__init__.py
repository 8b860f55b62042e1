"""Tuners, which choose hyperparameters from the scores of tuning trials."""

from collections.abc import Mapping
from typing import Any

from gradprix.spaces import Axis, Log

from .learning_rate_grid import LearningRateSearch
from .no_search import NoSearch
from .sobol import SobolSearch
from .tuner import Tuner
from .twofold import TwofoldTuner

FEWEST_TWOFOLD = 26
"""Minimum number of trials for two independent searches: each needs 13 to run its finalists on a second seed."""


def make_tuner(
    space: Mapping[str, Axis], default: Mapping[str, Any], trials: int, offset: float, rng_seed: int
) -> Tuner:
    """Create the tuner for a search space.

    If the learning rate is the only hyperparameter, it is searched on a logarithmic grid, twice and independently if
    `trials` is at least `FEWEST_TWOFOLD`. Other spaces are searched with Sobol points. An empty space has one trial.

    Args:
        space: search range of each hyperparameter, by name.
        default: default value of each hyperparameter. The search tries it, rounded to the search space.
        trials: number of trials that the tuner will request.
        offset: shift of the learning-rate grid, in grid steps.
        rng_seed: seed of the Sobol sequence.

    Raises:
        ValueError: if the space has fewer points than the search needs.
    """
    if not space:
        return NoSearch()
    lr = space.get("lr")
    if list(space) != ["lr"] or not isinstance(lr, Log):
        return SobolSearch(space, default, trials, rng_seed)
    if trials < FEWEST_TWOFOLD:
        return LearningRateSearch(lr, default["lr"], trials, offset)
    halves = (trials - trials // 2, trials // 2)
    return TwofoldTuner(*(LearningRateSearch(lr, default["lr"], half, offset) for half in halves))
