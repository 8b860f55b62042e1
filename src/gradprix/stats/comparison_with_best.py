"""Comparison with the best: upper bounds of the loss by choosing an entry instead of the best of the others.

Multiple comparisons with the best (Hsu 1984, doi:10.1214/aos/1176346581) compare every entry one-sided with the best
entry only, instead of with every other entry, and therefore need fewer seeds than all pairwise comparisons. The bounds
of all entries hold simultaneously, and therefore also for an entry that is selected after seeing the results.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from .permutation_test import FARTHEST, LEVEL, Floats, PartVariance, flipped_means, normal_deviates


def regret_bounds(
    values: Mapping[str, Sequence[float]],
    *,
    higher_is_better: bool,
    level: float = LEVEL,
    parts: Mapping[str, Any] | None = None,
    tuning: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Compute simultaneous upper bounds of the regret of every entry.

    The regret of an entry is the amount by which the best of the other entries is better. The entry itself is taken at
    the setting that tuning chose in this race, the other entries at their average over repetitions of tuning. The
    regret is 0 if the entry is the best.

    With x the means over seeds and s² the variance of a difference, the bound of entry i is the maximum over j of
    x_j − x_i + q_j s_ij, or 0. The threshold q_j is the 1 − level quantile, under sign flips, of the largest one-sided
    statistic among the differences between entry j and each other entry.

    Args:
        values: for each entry, the metric of every seed; all entries have the same seeds in the same order.
        higher_is_better: direction of the metric.
        level: probability that at least one bound is too small.
        parts: for each entry, the metric on each part of an official test set, of shape `[seeds][parts]`.
        tuning: for each entry, the standard deviation of its mean due to tuning; see `tuning_deviation`.

    Returns:
        The upper bound of each entry's regret, in the metric's units.
    """
    names, sign = list(values), 1.0 if higher_is_better else -1.0
    table = sign * np.array([values[name] for name in names], dtype=np.float64)
    index = list(combinations(range(len(names)), 2))
    differences = np.array([table[a] - table[b] for a, b in index])
    crossed = None
    if parts is not None:
        each = sign * np.array([parts[name] for name in names], dtype=np.float64)
        crossed = PartVariance.from_differences(np.array([each[a] - each[b] for a, b in index]))
    deviations = differences - differences.mean(1, keepdims=True)
    flipped, variances = flipped_means(deviations, crossed, sampled=tuning is not None)
    tuned = np.array([0.0 if tuning is None else tuning[name] for name in names])
    drawn = tuned[:, None] * (0.0 if tuning is None else normal_deviates(len(names)))
    means, bounds = table.mean(1), np.zeros(len(names))
    for best in range(len(names)):
        rows = [k for k, pair in enumerate(index) if best in pair]
        others = [a + b - best for a, b in (index[k] for k in rows)]
        signs = np.array([1.0 if index[k][1] == best else -1.0 for k in rows])[:, None]  # of other − best
        errors = np.sqrt(variances[rows] + tuned[best] ** 2)
        threshold = _quantile(signs * flipped[rows] - drawn[best], errors, level)
        bounds[others] = np.maximum(bounds[others], means[best] - means[others] + threshold * errors[:, 0])
    return dict(zip(names, bounds.tolist(), strict=True))


def _quantile(means: Floats, errors: Floats, level: float) -> float:
    """Return the 1 − level quantile of the largest statistic over pairs.

    The null distribution contains each vector of sign flips and its negative, because the test is one-sided.

    Args:
        means: mean differences under each vector of sign flips, of shape `[pairs, flips]`.
        errors: their standard errors, of the same shape.
        level: level of the test.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        statistics = np.nan_to_num(means / errors, nan=0.0, posinf=FARTHEST, neginf=-FARTHEST)
    largest = np.concatenate([statistics.max(0), (-statistics).max(0)])
    return float(np.quantile(largest, 1 - level, method="higher"))
