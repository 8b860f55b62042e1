"""Change of the distances between entries when every run has fewer examples."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from scipy.special import stdtrit

from .permutation_test import LEVEL, Floats


class DistanceChange(msgspec.Struct, frozen=True, kw_only=True):
    """Distance of an entry from the reference entry, with fewer examples and with all, in the metric's units.

    A positive distance means that the entry is worse.

    Args:
        reduced: distance with fewer examples.
        full: distance with all examples.
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
    reduced: Mapping[str, Sequence[float]],
    full: Mapping[str, Sequence[float]],
    reference: str,
    higher_is_better: bool,
) -> dict[str, DistanceChange]:
    """Compare the distances of entries from a reference entry at two budgets.

    The intervals are Welch's (1947, doi:10.1093/biomet/34.1-2.28). There are few runs with fewer examples, so that the
    variance of an entry is at least the mean over all entries, which has more degrees of freedom. Bonferroni's
    correction counts every entry twice, because the results choose the reference: with half of that, up to 7 % of
    simulated comparisons of ten equal entries named one.

    Args:
        reduced: for each entry, the metric of runs with fewer examples, under the same seeds in the same order.
        full: for each entry, the metric of full runs, likewise.
        reference: the entry that the others are compared with.
        higher_is_better: direction of the metric.

    Returns:
        The distances of each entry and the interval of their difference; zeros for the reference.
    """
    sign = 1.0 if higher_is_better else -1.0

    def distances(values: Mapping[str, Sequence[float]], name: str) -> Floats:
        return np.asarray(sign * (np.array(values[reference]) - np.array(values[name])), np.float64)

    others = [name for name in full if name != reference]
    if not others:
        return {reference: DistanceChange(reduced=0.0, full=0.0, ci95=(0.0, 0.0))}
    pooled = float(np.mean([distances(reduced, name).var(ddof=1) for name in others]))
    freedom = len(others) * (len(reduced[reference]) - 1)
    changes = {}
    for name in full:
        short, whole = distances(reduced, name), distances(full, name)
        errors = np.array([max(short.var(ddof=1), pooled) / len(short), whole.var(ddof=1) / len(whole)])
        variance, difference = float(errors.sum()), float(short.mean() - whole.mean())
        reach = 0.0
        if name != reference and variance > 0:
            welch = variance**2 / float((errors**2 / (freedom, len(whole) - 1)).sum())
            reach = float(stdtrit(welch, 1 - LEVEL / (4 * len(others)))) * variance**0.5
        interval = (difference - reach, difference + reach)
        changes[name] = DistanceChange(reduced=float(short.mean()), full=float(whole.mean()), ci95=interval)
    return changes
