"""Flips of sign: how a race's statistics are spread when all entries are equal.

Single-step max-T intervals with one common vector of sign flips for all pairs (Westfall & Young 1993, section 2.5;
Romano & Wolf 2005, doi:10.1198/016214504000000539): under equality a seed's differences are as likely as their
negatives, for all pairs together, so flipping signs seed by seed gives the distribution of the largest statistic.

Where the test examples are one official set, they are a sample too. Seeds and parts of the test set are crossed: the
variance of a mean difference is what seeds add and what parts add, less what both contain (two-way random effects,
Searle, Casella & McCulloch 1992, section 4.2), and signs are flipped by seed and, independently, by part.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""The chance of any false word in a whole race."""
EXHAUSTIVE = 16
"""Up to this many seeds every vector of signs is tried (half of them: a vector and its negative say the same)."""
SAMPLED = 20_000
FARTHEST = 1e6
"""A threshold in place of an infinite one, which a few coarse values under few seeds can give."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Parts:
    """What the parts of an official test set add to paired differences.

    Args:
        effects: how far each part's mean difference is from the mean over parts, `[pairs, parts]`.
        shared: the part of the variance of the mean that seeds and parts both contain, `[pairs]`.
    """

    effects: Floats
    shared: Floats

    @classmethod
    def of(cls, differences: Floats) -> "Parts":
        """Of differences `[pairs, seeds, parts]`."""
        _, n, k = differences.shape
        by_seed, by_part = differences.mean(2, keepdims=True), differences.mean(1, keepdims=True)
        whole = differences.mean((1, 2), keepdims=True)
        rest = ((differences - by_seed - by_part + whole) ** 2).sum((1, 2)) / ((n - 1) * (k - 1))
        return cls((by_part - whole)[:, 0], rest / (n * k))


def flip(differences: Floats, parts: Parts | None = None) -> tuple[Floats, Floats, Floats, Floats]:
    """Means, standard errors and statistics of paired differences, and the statistics' distribution under equality.

    Args:
        differences: `[pairs, seeds]`.
        parts: what the parts of an official test set add.

    Returns:
        means, errors and absolute studentised statistics, `[pairs]`; and `[pairs, flips]`, whose row k holds the
        largest statistic among the pairs that rank k-th or lower in the data. The first column is the data itself.
    """
    n = differences.shape[1]
    squares = (differences**2).sum(1, keepdims=True)
    flips = signs(n) if parts is None else _drawn(SAMPLED, n, 0)
    means = differences @ flips.T / n
    # Flipping signs leaves the squares as they are, so the variance follows from the mean alone.
    variance = np.maximum(squares / n - means**2, 0) * n / (n - 1)
    variance[variance <= 1e-12 * squares / n] = 0  # rounding of a difference that is the same under every seed
    errors = variance / n
    if parts is not None:
        k = parts.effects.shape[1]
        flipped = parts.effects @ _drawn(SAMPLED, k, 1).T / k
        more = np.maximum((parts.effects**2).mean(1, keepdims=True) - flipped**2, 0) / (k - 1)
        # Never less than what seeds alone have.
        errors = np.maximum(errors, errors + more - parts.shared[:, None])
        means = means + flipped
    with np.errstate(divide="ignore", invalid="ignore"):
        statistics = np.abs(means) / np.sqrt(errors)
    statistics[np.broadcast_to(squares == 0, statistics.shape)] = 0
    rank = np.argsort(-statistics[:, 0], kind="stable")
    largest = np.maximum.accumulate(statistics[rank[::-1]], axis=0)[::-1]
    return np.asarray(means[:, 0], np.float64), np.sqrt(errors[:, 0]), statistics[:, 0], largest


def signs(n: int) -> Floats:
    """Vectors of signs, `[flips, n]`, the first all positive: every one up to a common sign, or a fixed sample."""
    if n <= EXHAUSTIVE:
        bits = np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1
        return np.asarray(1.0 - 2.0 * bits, np.float64)
    return _drawn(SAMPLED, n, 0)


def _drawn(count: int, n: int, seed: int) -> Floats:
    drawn = np.random.default_rng(seed).choice([-1.0, 1.0], size=(count, n))
    drawn[0] = 1
    return np.asarray(drawn, np.float64)


def thresholds(
    differences: Floats, largest: Floats, levels: Sequence[float] = (LEVEL,), parts: Parts | None = None
) -> list[float]:
    """How many standard errors a simultaneous interval reaches to each side, at each level.

    Where entries do differ, a flipped difference is mostly its own mean with a sign, alike for all pairs, and the
    largest statistic too small to cover them all: then it is the deviations from the means that must be flipped.
    """
    deviations = flip(differences - differences.mean(1, keepdims=True), parts)[3]
    every = [np.quantile(found[0], [1 - level for level in levels], method="higher") for found in (largest, deviations)]
    return [float(reach) for reach in np.minimum(np.maximum(*every), FARTHEST)]


def step_down(statistic: Floats, largest: Floats) -> Floats:
    """Step-down p-values: each pair against the largest of those that rank no higher, never below a better one's."""
    rank = np.argsort(-statistic, kind="stable")
    # A billionth of slack counts flips that equal the data but for rounding.
    share: Floats = np.mean(largest >= statistic[rank, None] * (1 - 1e-9), axis=1)
    p = np.empty_like(share)
    p[rank] = np.maximum.accumulate(share)
    return p
