"""Tuners: they choose hyperparameters from the scores of tuning trials."""

from collections.abc import Mapping
from typing import Any

from gradprix.spaces import Axis, Log

from .learning_rate_grid import LearningRateTuner
from .sobol import SobolTuner
from .tuner import Tuner


def make_tuner(
    space: Mapping[str, Axis], default: Mapping[str, Any], trials: int, offset: float, rng_seed: int
) -> Tuner:
    """Return the tuner of a search space: a grid for the learning rate alone, Sobol points for several dimensions.

    Args:
        space: search range of each hyperparameter.
        default: default value of each, included in the search approximately.
        trials: exact number of trials.
        offset: shift of the learning-rate grid, in grid steps.
        rng_seed: seed of the Sobol sequence.

    Raises:
        ValueError: if the space has too few points.
    """
    if list(space) == ["lr"] and isinstance(space["lr"], Log):
        return LearningRateTuner(space["lr"], default["lr"], trials, offset)
    return SobolTuner(space, default, trials, rng_seed)
