"""Noise between a training run and its repetition elsewhere.

With other library versions or on another type of processor, sums are rounded differently, and the difference grows
during training until two runs under one seed differ as two seeds do, at most. Where rounding changes less, the
differences themselves show how much.
"""

import math
from collections.abc import Sequence
from statistics import stdev

from scipy.special import stdtrit

FEWEST_DIFFERENCES = 8
"""Smallest number of differences whose spread is used. Fewer can be equal by chance, for example if each is one test
example or none."""


def difference_deviation(variance: float) -> float:
    """Return the standard deviation of a difference between two seeds, from the variance over seeds."""
    return math.sqrt(2 * variance)


def largest_mean(
    differences: Sequence[float], deviation: float, margin: float, level: float, freedom: float = math.inf
) -> float:
    """Return the largest mean of differences between runs and their repetitions that is noise around zero.

    It is the smaller of two bounds, each of a t-test: one by the deviation between seeds, and, from
    `FEWEST_DIFFERENCES` on, one by the spread of the differences, but at least half a margin, because rounding can also
    shift all runs of a task a little.

    Args:
        differences: the differences.
        deviation: standard deviation of a difference between two seeds.
        margin: smallest difference that matters.
        level: probability that noise exceeds each bound.
        freedom: degrees of freedom of `deviation`.

    Example:
        >>> round(largest_mean([0.1] * 4, 1.0, 0.5, 0.001), 2), largest_mean([0.1] * 8, 1.0, 0.5, 0.001)
        (1.65, 0.25)
    """
    count = len(differences)
    by_seeds = t_quantile(level, freedom) * deviation / math.sqrt(count)
    if count < FEWEST_DIFFERENCES:
        return by_seeds
    return min(by_seeds, max(margin / 2, t_quantile(level, count - 1) * stdev(differences) / math.sqrt(count)))


def t_quantile(level: float, freedom: float) -> float:
    """Return the largest t statistic that a two-sided test does not reject.

    Args:
        level: level of the test.
        freedom: degrees of freedom; infinity for a deviation that is known.

    Example:
        >>> round(t_quantile(0.001, 7), 2), round(t_quantile(0.001, math.inf), 2)
        (5.41, 3.29)
    """
    return float(stdtrit(freedom, 1 - level / 2))
