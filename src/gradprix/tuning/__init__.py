"""Tuners: they choose hyperparameters from the scores of tuning trials."""

from collections.abc import Mapping
from typing import Any

from gradprix.spaces import Axis, Log

from .learning_rate_grid import LearningRateSearch
from .sobol import SobolSearch
from .tuner import Tuner
from .twofold import TwofoldTuner

FEWEST_TWOFOLD = 26
"""Minimum number of trials for two searches: each needs 13 to run its finalists on a second seed."""


def make_tuner(
    space: Mapping[str, Axis], default: Mapping[str, Any], trials: int, offset: float, rng_seed: int
) -> Tuner:
    """Return the tuner of a search space: Sobol points for several dimensions, a grid for the learning rate alone.

    With enough trials the grid is searched twice, independently.

    Args:
        space: search range of each hyperparameter.
        default: default value of each, included in the search approximately.
        trials: exact number of trials.
        offset: shift of the learning-rate grid, in grid steps.
        rng_seed: seed of the Sobol sequence.

    Raises:
        ValueError: if the space has too few points.
    """
    lr = space["lr"]
    if list(space) != ["lr"] or not isinstance(lr, Log):
        return SobolSearch(space, default, trials, rng_seed)
    if trials < FEWEST_TWOFOLD:
        return LearningRateSearch(lr, default["lr"], trials, offset)
    halves = (trials - trials // 2, trials // 2)
    return TwofoldTuner(*(LearningRateSearch(lr, default["lr"], half, offset) for half in halves))
