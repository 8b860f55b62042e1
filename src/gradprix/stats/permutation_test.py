"""Permutation test by sign flips, which gives the null distribution of the statistics of a race.

Confidence intervals are single-step max-T intervals, with one vector of sign flips common to all pairs (Westfall &
Young 1993, section 2.5; Romano & Wolf 2005, doi:10.1198/016214504000000539). Under the null hypothesis, the differences
of a seed and their negatives are equally likely, jointly for all pairs. Flipping the signs of whole seeds at random
therefore gives the distribution of the largest statistic.

Seeds are not the only source of variation. The variance of a mean difference is the sum of the variances from

* seeds;
* the parts of an official test set, which is a sample too. Seeds and parts are crossed factors (two-way random effects,
  Searle, Casella & McCulloch 1992, section 4.2): their shared term is subtracted once, and signs are flipped by seed
  and, independently, by part;
* tuning, which would have chosen other settings with other tuning seeds: every entry gets a random, normally
  distributed deviation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""Family-wise error rate of a race."""
EXHAUSTIVE = 16
"""Maximum number of seeds for which all vectors of sign flips are enumerated, up to a common sign."""
SAMPLED = 20_000
"""Number of random vectors of sign flips where they are not enumerated."""
FARTHEST = 1e6
"""Replacement of infinite thresholds, which occur with coarse metrics and few seeds."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PartVariance:
    """Contribution of the parts of an official test set to the variance of paired differences.

    Args:
        effects: for each pair and part, the mean difference on this part minus the mean over parts, `[pairs, parts]`.
        shared: variance of the mean that is contained in both the seed term and the part term, `[pairs]`.
    """

    effects: Floats
    shared: Floats

    @classmethod
    def from_differences(cls, differences: Floats) -> "PartVariance":
        """Estimate the contribution from paired differences of shape `[pairs, seeds, parts]`."""
        _, n, k = differences.shape
        by_seed, by_part = differences.mean(2, keepdims=True), differences.mean(1, keepdims=True)
        grand = differences.mean((1, 2), keepdims=True)
        rest = ((differences - by_seed - by_part + grand) ** 2).sum((1, 2)) / ((n - 1) * (k - 1))
        return cls((by_part - grand)[:, 0], rest / (n * k))


def sign_flip_distribution(
    differences: Floats, parts: PartVariance | None = None, tuning: Floats | None = None
) -> tuple[Floats, Floats, Floats, Floats]:
    """Compute means, standard errors and statistics of paired differences, and their null distribution.

    Args:
        differences: difference of each pair of entries under each seed, `[pairs, seeds]`.
        parts: contribution of the parts of an official test set to the variance; None if there are no parts.
        tuning: standard deviations due to tuning, `[pairs, entries]`. A row holds that of the first entry of the pair,
            the negative of that of the second entry, and 0 for all other entries. None ignores tuning.

    Returns:
        Means, standard errors and absolute studentised statistics, each of shape `[pairs]`, and the null distribution
        of shape `[pairs, flips]`. Row k of the null distribution holds, for each vector of sign flips, the largest
        statistic among all pairs except the k with the largest statistics in the data. Its first column belongs to the
        data without flips.
    """
    means, errors = flipped_means(differences, parts, sampled=tuning is not None)
    if tuning is not None:
        means = means + tuning @ normal_deviates(tuning.shape[1])
        errors = errors + (tuning**2).sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistics = np.abs(means) / np.sqrt(errors)
    statistics[~differences.any(axis=1)] = 0
    rank = np.argsort(-statistics[:, 0], kind="stable")
    largest = np.maximum.accumulate(statistics[rank[::-1]], axis=0)[::-1]
    return np.asarray(means[:, 0], np.float64), np.sqrt(errors[:, 0]), statistics[:, 0], largest


def flipped_means(
    differences: Floats, parts: PartVariance | None = None, *, sampled: bool = False
) -> tuple[Floats, Floats]:
    """Compute the mean difference of each pair, and the variance of this mean, under each vector of sign flips.

    Args:
        differences: difference of each pair of entries under each seed, `[pairs, seeds]`.
        parts: contribution of the parts of an official test set to the variance; None if there are no parts.
        sampled: draw `SAMPLED` random vectors even if there are few enough seeds to enumerate all vectors.

    Returns:
        Means and variances, each of shape `[pairs, flips]`.
    """
    n = differences.shape[1]
    squares = (differences**2).sum(1, keepdims=True)
    flips = _draw_signs(SAMPLED, n, 0) if sampled or parts is not None else sign_vectors(n)
    means = differences @ flips.T / n
    # Flipping signs does not change the squares, so the variance follows from the mean alone.
    variance = np.maximum(squares / n - means**2, 0) * n / (n - 1)
    variance[variance <= 1e-12 * squares / n] = 0  # rounding error if the difference is the same under every seed
    errors = variance / n
    if parts is not None:
        k = parts.effects.shape[1]
        flipped = parts.effects @ _draw_signs(SAMPLED, k, 1).T / k
        more = np.maximum((parts.effects**2).mean(1, keepdims=True) - flipped**2, 0) / (k - 1)
        # The total is never smaller than the variance from seeds alone.
        errors = np.maximum(errors, errors + more - parts.shared[:, None])
        means = means + flipped
    return means, errors


def sign_vectors(n: int) -> Floats:
    """Return vectors of sign flips, of shape `[flips, n]`.

    Up to `EXHAUSTIVE` seeds, these are all vectors whose first element is positive; the others are their negatives.
    Beyond that, they are a fixed random sample. The first vector flips nothing.
    """
    if n <= EXHAUSTIVE:
        bits = np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1
        return np.asarray(1.0 - 2.0 * bits, np.float64)
    return _draw_signs(SAMPLED, n, 0)


def _draw_signs(count: int, n: int, seed: int) -> Floats:
    """Draw vectors of random signs, of shape `[count, n]`; all signs of the first vector are positive."""
    drawn = np.random.default_rng(seed).choice([-1.0, 1.0], size=(count, n))
    drawn[0] = 1
    return np.asarray(drawn, np.float64)


@cache
def normal_deviates(entries: int) -> Floats:
    """Return a fixed random sample of standard normal deviates, of shape `[entries, flips]`.

    The first column belongs to the data and is zero.
    """
    drawn = np.random.default_rng(2).standard_normal((SAMPLED, entries)).T
    drawn[:, 0] = 0
    return drawn


def thresholds(
    differences: Floats,
    largest: Floats,
    levels: Sequence[float] = (LEVEL,),
    parts: PartVariance | None = None,
    tuning: Floats | None = None,
) -> list[float]:
    """Return the half-width of simultaneous confidence intervals, in standard errors, at each level.

    The half-width is the larger of two quantiles: one from flipping the differences, the other from flipping their
    deviations from the mean. If entries differ clearly, flipped differences are dominated by their means, which have
    similar statistics in all pairs, and their quantile alone would be too small.

    Args:
        differences: difference of each pair of entries under each seed, `[pairs, seeds]`.
        largest: null distribution of the differences, from `sign_flip_distribution`.
        levels: levels of the intervals.
        parts: contribution of the parts of an official test set to the variance; None if there are no parts.
        tuning: standard deviations due to tuning; see `sign_flip_distribution`.
    """
    deviations = sign_flip_distribution(differences - differences.mean(1, keepdims=True), parts, tuning)[3]
    probabilities = [1 - level for level in levels]
    quantiles = [np.quantile(null[0], probabilities, method="higher") for null in (largest, deviations)]
    return [float(reach) for reach in np.minimum(np.maximum(*quantiles), FARTHEST)]


def step_down(statistic: Floats, largest: Floats) -> Floats:
    """Compute step-down p-values, adjusted for all pairs.

    Each statistic is compared with the null distribution of the maximum over the pairs with an equal or smaller
    statistic. The p-values are then made monotone: a pair with a smaller statistic never gets a smaller p-value.

    Args:
        statistic: statistic of each pair, `[pairs]`.
        largest: null distribution from `sign_flip_distribution`, `[pairs, flips]`.
    """
    rank = np.argsort(-statistic, kind="stable")
    # A relative tolerance of 1e-9 counts flips that equal the data up to rounding.
    share: Floats = np.mean(largest >= statistic[rank, None] * (1 - 1e-9), axis=1)
    p = np.empty_like(share)
    p[rank] = np.maximum.accumulate(share)
    return p
