"""Permutation test by sign flips: the null distribution of a race's statistics.

Single-step max-T intervals with one common vector of sign flips for all pairs (Westfall & Young 1993, section 2.5;
Romano & Wolf 2005, doi:10.1198/016214504000000539): under the null hypothesis the differences
of a seed and their negatives are equally likely, jointly for all pairs, so flipping signs seed by seed gives the
distribution of the largest statistic.

Seeds are not the only source of variation. The variance of a mean difference is the sum of those from

* seeds;
* the parts of an official test set, which is a sample too. Seeds and parts are crossed factors (two-way random effects,
  Searle, Casella & McCulloch 1992, section 4.2): their shared term is subtracted once, and signs are flipped by seed
  and, independently, by part;
* tuning, which would have chosen other settings under other seeds: a normal deviation of each entry.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""Family-wise error rate of a race."""
EXHAUSTIVE = 16
"""Maximum number of seeds for the exhaustive test (over half of the sign vectors: a vector and its negative are
equivalent)."""
SAMPLED = 20_000
FARTHEST = 1e6
"""Replacement of an infinite threshold, which coarse metrics under few seeds can give."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PartVariance:
    """Contribution of the parts of an official test set to the variance of paired differences.

    Args:
        effects: deviation of each part's mean difference from the mean over parts, `[pairs, parts]`.
        shared: variance of the mean that the seed and part terms both contain, `[pairs]`.
    """

    effects: Floats
    shared: Floats

    @classmethod
    def from_differences(cls, differences: Floats) -> "PartVariance":
        """Estimate the effects from differences `[pairs, seeds, parts]`."""
        _, n, k = differences.shape
        by_seed, by_part = differences.mean(2, keepdims=True), differences.mean(1, keepdims=True)
        grand = differences.mean((1, 2), keepdims=True)
        rest = ((differences - by_seed - by_part + grand) ** 2).sum((1, 2)) / ((n - 1) * (k - 1))
        return cls((by_part - grand)[:, 0], rest / (n * k))


def sign_flip_distribution(
    differences: Floats, parts: PartVariance | None = None, tuning: Floats | None = None
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return means, standard errors and statistics of paired differences, and the null distribution of the statistics.

    Args:
        differences: `[pairs, seeds]`.
        parts: contribution of the parts of an official test set.
        tuning: standard deviation from tuning of each entry in a pair, negative for the second of them and zero for
            the others, `[pairs, entries]`.

    Returns:
        means, errors and absolute studentised statistics, `[pairs]`; and `[pairs, flips]`, whose row k holds the
        largest statistic among the pairs that rank k-th or lower in the data. The first column is the data itself.
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
    """Return the mean of each pair's differences under each vector of sign flips, and its variance: `[pairs, flips]`.

    Args:
        differences: `[pairs, seeds]`.
        parts: contribution of the parts of an official test set.
        sampled: draw `SAMPLED` vectors, although there are few enough seeds to enumerate all of them.
    """
    n = differences.shape[1]
    squares = (differences**2).sum(1, keepdims=True)
    flips = _draw_signs(SAMPLED, n, 0) if sampled or parts is not None else sign_vectors(n)
    means = differences @ flips.T / n
    # Flipping signs does not change the squares, so the variance follows from the mean alone.
    variance = np.maximum(squares / n - means**2, 0) * n / (n - 1)
    variance[variance <= 1e-12 * squares / n] = 0  # rounding error of a difference that is equal under every seed
    errors = variance / n
    if parts is not None:
        k = parts.effects.shape[1]
        flipped = parts.effects @ _draw_signs(SAMPLED, k, 1).T / k
        more = np.maximum((parts.effects**2).mean(1, keepdims=True) - flipped**2, 0) / (k - 1)
        # Never smaller than the variance from seeds alone.
        errors = np.maximum(errors, errors + more - parts.shared[:, None])
        means = means + flipped
    return means, errors


def sign_vectors(n: int) -> Floats:
    """Return sign vectors `[flips, n]`, the first all positive: all up to a common sign, or a fixed sample."""
    if n <= EXHAUSTIVE:
        bits = np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1
        return np.asarray(1.0 - 2.0 * bits, np.float64)
    return _draw_signs(SAMPLED, n, 0)


def _draw_signs(count: int, n: int, seed: int) -> Floats:
    drawn = np.random.default_rng(seed).choice([-1.0, 1.0], size=(count, n))
    drawn[0] = 1
    return np.asarray(drawn, np.float64)


@cache
def normal_deviates(entries: int) -> Floats:
    """Return a fixed sample of standard normal deviates `[entries, flips]`; the first column, the data, is zero."""
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
    """Return the half-width of simultaneous intervals in standard errors, at each level.

    If entries differ, a flipped difference is dominated by its signed mean, similarly for all pairs, and the largest
    statistic is too small to cover them all: then the deviations from the means must be flipped.
    """
    deviations = sign_flip_distribution(differences - differences.mean(1, keepdims=True), parts, tuning)[3]
    probabilities = [1 - level for level in levels]
    quantiles = [np.quantile(null[0], probabilities, method="higher") for null in (largest, deviations)]
    return [float(reach) for reach in np.minimum(np.maximum(*quantiles), FARTHEST)]


def step_down(statistic: Floats, largest: Floats) -> Floats:
    """Return step-down p-values: each pair against the maximum over pairs of no higher rank, made monotone."""
    rank = np.argsort(-statistic, kind="stable")
    # A relative tolerance of 1e-9 counts flips that equal the data up to rounding.
    share: Floats = np.mean(largest >= statistic[rank, None] * (1 - 1e-9), axis=1)
    p = np.empty_like(share)
    p[rank] = np.maximum.accumulate(share)
    return p
