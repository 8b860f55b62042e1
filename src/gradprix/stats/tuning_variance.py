"""Tuning variance: how much the mean of a tuned entry would vary if the whole race were repeated.

Another base seed gives other tuning runs, hence another choice of hyperparameters, which no number of final seeds
averages out. Two independent searches in the same race show this variance; it is pooled over the entries, because one
difference says little, and shrunk to that of the built-in tasks, because a few entries do not say much more.
"""

import math
from collections.abc import Sequence

PRIOR_TWOFOLD = 0.3
"""Standard deviation from tuning on built-in tasks, in margins: 0.16 on `digits`, 0.12 on `tailed` and 0.62 on the
small preset of `sentiment` (studies/tuning_variance.py), hence their geometric mean, 0.23, rounded up."""
PRIOR_ONE_SEARCH = 0.6
"""The same with a single search of 19 trials: 0.27, 0.13 and 1.6, with a geometric mean of 0.38."""
PRIOR_WEIGHT = 4
"""Number of entries that the built-in tasks count for."""


def tuning_deviation(differences: Sequence[float], margin: float) -> float:
    """Return the standard deviation of an entry's mean from tuning, in the metric's units.

    With d the difference of the metric between the choices of two independent searches, d² / 2 estimates the variance
    from one search without bias, and half of that the variance at the mean of both choices. The estimate is increased
    by the variance of Student's t, because it is itself uncertain.

    Args:
        differences: for each entry that was searched twice, the smoothed metric at one choice less that at the other.
        margin: the smallest difference that matters.
    """
    if not differences:
        return PRIOR_ONE_SEARCH * margin
    prior = (PRIOR_TWOFOLD * margin) ** 2
    pooled = sum(difference**2 / 4 for difference in differences)
    freedom = PRIOR_WEIGHT + len(differences)
    return math.sqrt((PRIOR_WEIGHT * prior + pooled) / (freedom - 2))
