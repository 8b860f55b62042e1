"""Who wins, who ties and what is not known: all pairs at once, from paired runs.

Single-step max-T intervals with one common vector of sign flips for all pairs (Westfall & Young 1993, section 2.5;
Romano & Wolf 2005, doi:10.1198/016214504000000539): under equality a seed's differences are as likely as their
negatives, for all pairs together, so flipping signs seed by seed gives the distribution of the largest statistic.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ._looks import allowed

Words = Literal["wins", "slightly ahead", "ties", "not settled"]
LEVEL = 0.05
"""The chance of any false word in a whole race."""
EXHAUSTIVE = 16
"""Up to this many seeds every vector of signs is tried (half of them: a vector and its negative say the same)."""
SAMPLED = 20_000
FARTHEST = 1e6
"""A threshold in place of an infinite one, which a few coarse values under few seeds can give."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """What is known of two entries, `a` being the one with the better mean.

    Args:
        a: the name of one.
        b: the name of the other.
        difference: mean over seeds of a − b, turned so that more is better for a.
        ci95: simultaneous interval: all pairs' intervals, at all looks, hold together in 95 % of races.
        p: step-down p-value, adjusted for all pairs.
        words: `"wins"`, `"slightly ahead"`, `"ties"` or `"not settled"`.
        more_seeds: about how many further seeds would settle it; None when settled.
    """

    a: str
    b: str
    difference: float
    ci95: tuple[float, float]
    p: float
    words: Words
    more_seeds: int | None


@dataclass(frozen=True)
class Verdict:
    """All pairs, and the entries that nothing wins against, best mean first."""

    pairs: tuple[Pair, ...]
    leaders: tuple[str, ...]


def judge(
    values: Mapping[str, Sequence[float]],
    *,
    higher_is_better: bool,
    margin: float,
    relative: bool = False,
    level: float = LEVEL,
) -> Verdict:
    """Compare every entry with every other.

    Args:
        values: for each entry, the metric under the same seeds in the same order.
        higher_is_better: the metric's direction.
        margin: the smallest difference that matters, in the metric's units.
        relative: whether `margin` is a share of the better entry's mean instead.
        level: the chance of any false word that this look may take.

    Raises:
        ValueError: unless there are two entries or more, with two finite values or more each, the same number for all.
    """
    names = list(values)
    table = np.array([values[name] for name in names], dtype=np.float64)
    if table.ndim != 2 or len(names) < 2 or table.shape[1] < 2 or not np.isfinite(table).all():
        raise ValueError("a verdict needs two entries or more, each with the same two finite values or more.")
    means = table.mean(1)
    order = np.argsort(-means if higher_is_better else means, kind="stable")
    index = [(order[i], order[j]) for i, j in combinations(range(len(names)), 2)]
    turn = 1.0 if higher_is_better else -1.0
    differences = np.array([turn * (table[a] - table[b]) for a, b in index])
    centre, error, statistic, largest = flip(differences)
    half = threshold(differences, largest, level) * error
    p = step_down(statistic, largest)
    margins = [margin * abs(means[a]) if relative else margin for a, _ in index]
    pairs = tuple(
        _pair(names[a], names[b], centre[k], half[k], p[k], margins[k], differences[k])
        for k, (a, b) in enumerate(index)
    )
    beaten = {pair.b for pair in pairs if pair.words == "wins"}
    return Verdict(pairs, tuple(names[i] for i in order if names[i] not in beaten))


def _pair(a: str, b: str, centre: float, half: float, p: float, margin: float, differences: Floats) -> Pair:
    low, high = centre - half, centre + half
    words: Words = "not settled"
    if not differences.any():
        words = "ties"
    elif low > 0:
        words = "wins" if centre > margin else "slightly ahead"
    elif -margin < low and high < margin:
        words = "ties"
    more = None
    if words == "not settled":
        # The interval shrinks with the square root of the seeds: until it clears zero, or fits inside the margin.
        need = max(abs(centre), margin - abs(centre))
        more = math.ceil(len(differences) * ((half / need) ** 2 - 1)) + 1 if need > 0 else None
    return Pair(a, b, float(centre), (float(low), float(high)), float(p), words, more)


def flip(differences: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Means, standard errors and statistics of paired differences, and the statistics' distribution under equality.

    Args:
        differences: `[pairs, seeds]`.

    Returns:
        means, errors and absolute studentised statistics, `[pairs]`; and `[pairs, flips]`, whose row k holds the
        largest statistic among the pairs that rank k-th or lower in the data. The first column is the data itself.
    """
    n = differences.shape[1]
    squares = (differences**2).sum(1, keepdims=True)
    means = differences @ signs(n).T / n
    # Flipping signs leaves the squares as they are, so the variance follows from the mean alone.
    variance = np.maximum(squares / n - means**2, 0) * n / (n - 1)
    constant = variance <= 1e-12 * squares / n  # rounding of a difference that is the same under every seed
    with np.errstate(divide="ignore", invalid="ignore"):
        statistics = np.abs(means) / np.sqrt(variance / n)
    statistics[constant] = np.inf
    statistics[np.broadcast_to(squares == 0, statistics.shape)] = 0
    rank = np.argsort(-statistics[:, 0], kind="stable")
    largest = np.maximum.accumulate(statistics[rank[::-1]], axis=0)[::-1]
    error = np.sqrt(np.where(constant[:, 0], 0, variance[:, 0]) / n)
    return np.asarray(means[:, 0], np.float64), np.asarray(error), statistics[:, 0], largest


def signs(n: int) -> Floats:
    """Vectors of signs, `[flips, n]`, the first all positive: every one up to a common sign, or a fixed sample."""
    if n <= EXHAUSTIVE:
        bits = np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1
        return np.asarray(1.0 - 2.0 * bits, np.float64)
    drawn = np.random.default_rng(0).choice([-1.0, 1.0], size=(SAMPLED, n))
    drawn[0] = 1
    return np.asarray(drawn, np.float64)


def threshold(differences: Floats, largest: Floats, level: float = LEVEL) -> float:
    """How many standard errors a simultaneous interval reaches to each side.

    Where entries do differ, a flipped difference is mostly its own mean with a sign, alike for all pairs, and the
    largest statistic too small to cover them all: then it is the deviations from the means that must be flipped.
    """
    deviations = flip(differences - differences.mean(1, keepdims=True))[3]
    reach = max(float(np.quantile(found[0], 1 - level, method="higher")) for found in (largest, deviations))
    return min(reach, FARTHEST)


def step_down(statistic: Floats, largest: Floats) -> Floats:
    """Step-down p-values: each pair against the largest of those that rank no higher, never below a better one's."""
    rank = np.argsort(-statistic, kind="stable")
    # A billionth of slack counts flips that equal the data but for rounding.
    share: Floats = np.mean(largest >= statistic[rank, None] * (1 - 1e-9), axis=1)
    p = np.empty_like(share)
    p[rank] = np.maximum.accumulate(share)
    return p


def own_interval(values: Sequence[float]) -> tuple[float, float]:
    """An entry's own 95 % interval for its mean over seeds (Student's t)."""
    n = len(values)
    mean, half = float(np.mean(values)), float(stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(n))
    return mean - half, mean + half


def detectable(entries: int, seeds: int) -> float:
    """The smallest difference a race can tell four times in five, in standard deviations of the paired difference.

    The threshold is the max-T one for as many equal entries on normal noise; the rest is Student's t.
    """
    noise = np.random.default_rng(0).standard_normal((entries, seeds))
    pairs = np.array([noise[a] - noise[b] for a, b in combinations(range(entries), 2)])
    threshold = float(np.quantile(flip(pairs)[3][0], 1 - allowed(seeds), method="higher"))
    return (threshold + float(stdtrit(seeds - 1, 0.8))) / math.sqrt(seeds)
