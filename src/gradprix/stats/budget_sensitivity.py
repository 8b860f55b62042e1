"""Change of the distances between entries when every run has fewer examples."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from scipy.special import stdtrit

from .permutation_test import LEVEL, Floats


class DistanceChange(msgspec.Struct, frozen=True, kw_only=True):
    """Distance of an entry from the best mean, with fewer examples and with all of them, in the metric's units.

    Args:
        reduced: distance with fewer examples, 0 for the best entry.
        full: distance with all examples, 0 for the best entry.
        ci95: confidence interval of `reduced - full`: the intervals of all entries hold jointly in 95 % of races.
    """

    reduced: float
    full: float
    ci95: tuple[float, float]

    def exceeds(self, margin: float) -> bool:
        """Return True if the distance changes by more than a margin, and not by chance."""
        is_significant = self.ci95[0] > 0 or self.ci95[1] < 0
        return is_significant and abs(self.reduced - self.full) > margin


def distance_changes(
    reduced: Mapping[str, Sequence[float]], full: Mapping[str, Sequence[float]], higher_is_better: bool
) -> dict[str, DistanceChange]:
    """Return how the distance of each entry from the best entry differs between two budgets.

    The intervals are Welch's (1947, doi:10.1093/biomet/34.1-2.28), with Bonferroni's correction for the number of
    ordered pairs of entries, because the results choose the entry with the best mean: with a correction for the number
    of entries alone, 12 % of comparisons of ten equal entries would name one.

    Args:
        reduced: for each entry, the metric of runs with fewer examples, under the same seeds in the same order.
        full: for each entry, the metric of full runs, likewise.
        higher_is_better: direction of the metric.

    Returns:
        The distances of each entry and the interval of their difference.
    """

    def distances(values: Mapping[str, Sequence[float]], name: str) -> Floats:
        """Return the distance of an entry from the one with the best mean, for each seed."""
        best = (max if higher_is_better else min)(values, key=lambda each: float(np.mean(values[each])))
        sign = 1.0 if higher_is_better else -1.0
        return np.asarray(sign * (np.array(values[best]) - np.array(values[name])), np.float64)

    level = LEVEL / max(1, len(full) * (len(full) - 1))
    return {name: _change(distances(reduced, name), distances(full, name), level) for name in full}


def _change(reduced: Floats, full: Floats, level: float) -> DistanceChange:
    sizes = np.array([len(reduced), len(full)])
    squared_errors = np.array([reduced.var(ddof=1), full.var(ddof=1)]) / sizes
    variance, mean, reach = float(squared_errors.sum()), float(reduced.mean() - full.mean()), 0.0
    if variance > 0:
        freedom = variance**2 / float((squared_errors**2 / (sizes - 1)).sum())
        reach = float(stdtrit(freedom, 1 - level / 2)) * variance**0.5
    return DistanceChange(reduced=float(reduced.mean()), full=float(full.mean()), ci95=(mean - reach, mean + reach))
