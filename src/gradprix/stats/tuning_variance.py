"""Tuning variance: the variance of a tuned entry's mean if the whole race, tuning included, were repeated.

Another base seed gives other tuning runs and therefore another choice of hyperparameters. More final seeds do not
average this variation out. Two independent searches in the same race allow an estimate of the variance. The estimate is
pooled over entries, because a single difference is very noisy, and shrunk towards the variance measured on built-in
tasks, because a race has only a few entries.
"""

import math
from collections.abc import Sequence

PRIOR_TWOFOLD = 0.3
"""Standard deviation due to tuning with two searches, on built-in tasks, in margins. It was 0.16 on `digits`, 0.12 on
`tailed` and 0.62 on the small preset of `sentiment` (studies/tuning_variance.py), with a geometric mean of 0.23, which
is rounded up."""
PRIOR_ONE_SEARCH = 0.6
"""Standard deviation due to tuning with a single search of 19 trials, in margins. It was 0.27, 0.13 and 1.6 on the same
tasks, with a geometric mean of 0.38."""
PRIOR_WEIGHT = 4
"""Degrees of freedom of the prior: the built-in tasks count as much as this number of entries."""


def tuning_deviation(differences: Sequence[float], margin: float) -> float:
    """Estimate the standard deviation of an entry's mean due to tuning, in the metric's units.

    Let d be the difference of the metric between the learning rates that two independent searches chose. Then d² / 2 is
    an unbiased estimate of the variance after one search, and d² / 4 of the variance at the mean of both rates. The
    pooled estimate is multiplied by the variance of Student's t, because it is itself uncertain.

    Args:
        differences: for each entry with two searches, the smoothed metric at the learning rate of one search minus that
            at the learning rate of the other. If empty, the prior for a single search is returned.
        margin: the smallest difference that matters, in the metric's units.
    """
    if not differences:
        return PRIOR_ONE_SEARCH * margin
    prior = (PRIOR_TWOFOLD * margin) ** 2
    pooled = sum(difference**2 / 4 for difference in differences)
    freedom = PRIOR_WEIGHT + len(differences)
    return math.sqrt((PRIOR_WEIGHT * prior + pooled) / (freedom - 2))


def include_search(deviation: float, count: int, difference: float, margin: float) -> float:
    """Return the estimate of `tuning_deviation` after one more entry, given the estimate without it.

    Args:
        deviation: estimate from `count` entries.
        count: number of entries with two searches.
        difference: that of the new entry; see `tuning_deviation`.
        margin: the smallest difference that matters, in the metric's units.

    Example:
        >>> before, after = tuning_deviation([0.2, 0.4], 1.0), tuning_deviation([0.2, 0.4, 0.3], 1.0)
        >>> math.isclose(include_search(before, 2, 0.3, 1.0), after)
        True
    """
    if count == 0:
        return tuning_deviation([difference], margin)
    freedom = PRIOR_WEIGHT + count
    pooled = deviation**2 * (freedom - 2) + difference**2 / 4
    return math.sqrt(pooled / (freedom - 1))
