"""Verdict of a race: simultaneous pairwise comparisons of entries that ran on the same seeds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import combinations
from typing import Any

import msgspec
import numpy as np
from scipy.special import stdtrit

from gradprix.utils.margins import absolute_margin

from .alpha_spending import planned_level, remaining_analyses
from .permutation_test import LEVEL, PartVariance, sign_flip_distribution, step_down, thresholds

MOST_SEEDS = 300
"""Maximum number of final seeds per entry. Up to it, the seed ranges of final runs and of tuning do not overlap."""


class PairVerdict(StrEnum):
    """Verdict of a comparison. The values are the strings in saved races and in the output of `--json`."""

    WINS = "wins"
    SLIGHTLY_AHEAD = "slightly ahead"
    TIES = "ties"
    INCONCLUSIVE = "inconclusive"

    @classmethod
    def _missing_(cls, value: object) -> "PairVerdict | None":
        return cls.INCONCLUSIVE if value == "not settled" else None  # in races that earlier versions saved


class Pair(msgspec.Struct, frozen=True):
    """Comparison of two entries.

    Args:
        a: name of the entry with the better mean.
        b: name of the other entry.
        difference: mean difference over seeds, with its sign chosen so that positive values favour `a`.
        ci95: simultaneous confidence interval of the difference. The intervals of all pairs at all interim analyses are
            jointly correct in 95 % of races.
        p: step-down p-value, adjusted for all pairs.
        verdict: verdict of the comparison, from the point of view of `a`.
        more_seeds: approximate number of additional seeds that would make the comparison conclusive, up to the next
            suitable interim analysis. None if it is conclusive, or if the maximum number of seeds would not suffice.
    """

    a: str
    b: str
    difference: float
    ci95: tuple[float, float]
    p: float
    verdict: PairVerdict = msgspec.field(name="words")
    more_seeds: int | None

    @property
    def words(self) -> str:
        """Verdict as a string."""
        return self.verdict.value


@dataclass(frozen=True)
class Verdict:
    """Pairwise comparisons and leaders of a race.

    Args:
        pairs: comparisons of all pairs of entries; with a baseline, only the pairs that contain it.
        leaders: entries that no other entry wins against, best mean first. With a baseline, the entries that win
            against the baseline; if there are none, the baseline and the entries that it does not win against.
    """

    pairs: tuple[Pair, ...]
    leaders: tuple[str, ...]


def judge(
    values: Mapping[str, Sequence[float]],
    *,
    higher_is_better: bool,
    margin: float,
    relative: bool = False,
    level: float = LEVEL,
    spent: float | None = None,
    baseline: str | None = None,
    parts: Mapping[str, Any] | None = None,
    tuning: Mapping[str, float] | None = None,
) -> Verdict:
    """Compare all pairs of entries, or every entry with a baseline.

    Args:
        values: for each entry, the metric of every seed; all entries have the same seeds in the same order.
        higher_is_better: direction of the metric.
        margin: the smallest difference that matters, in the metric's units.
        relative: interpret `margin` as a fraction of the better entry's mean.
        level: family-wise error rate of this interim analysis.
        spent: error that this analysis and all earlier ones have spent together. None means `level`: there was no
            earlier analysis.
        baseline: name of the entry that all others are compared with. It must be chosen before any result is seen. None
            compares all pairs.
        parts: for each entry, the metric on each part of an official test set, of shape `[seeds][parts]`. With it, the
            intervals generalize to other seeds *and* other test examples.
        tuning: for each entry, the standard deviation of its mean due to tuning; see `tuning_deviation`. With it, the
            comparisons are about optimizers as tuned on average, not about the settings that this race chose.

    Raises:
        ValueError: unless there are at least two entries, all with the same number of values, at least two, and all
            values are finite.
    """
    names = list(values)
    table = np.array([values[name] for name in names], dtype=np.float64)
    if table.ndim != 2 or len(names) < 2 or table.shape[1] < 2 or not np.isfinite(table).all():
        raise ValueError("a verdict needs two entries or more, each with the same two finite values or more.")
    means = table.mean(1)
    order = np.argsort(-means if higher_is_better else means, kind="stable")
    index = [(order[i], order[j]) for i, j in combinations(range(len(names)), 2)]
    index = [(a, b) for a, b in index if baseline in (None, names[a], names[b])]
    sign = 1.0 if higher_is_better else -1.0
    differences = np.array([sign * (table[a] - table[b]) for a, b in index])
    crossed = None
    if parts is not None:
        each = np.array([parts[name] for name in names], dtype=np.float64)
        crossed = PartVariance.from_differences(np.array([sign * (each[a] - each[b]) for a, b in index]))
    tuned = None
    if tuning is not None:
        tuned = np.zeros((len(index), len(names)))
        for k, (a, b) in enumerate(index):
            tuned[k, a], tuned[k, b] = tuning[names[a]], -tuning[names[b]]
    centre, error, statistic, largest = sign_flip_distribution(differences, crossed, tuned)
    n = table.shape[1]
    analyses = remaining_analyses(n, level if spent is None else spent, MOST_SEEDS)
    reach, *reaches = thresholds(differences, largest, [level, *(left for *_, left in analyses)], crossed, tuned)
    half = reach * error
    # More seeds reduce the first part of the variance, but not the second, which is due to test examples and tuning.
    by_seed = differences.var(axis=1, ddof=1)
    fixed = np.maximum(error**2 - by_seed / n, 0)
    p = step_down(statistic, largest)
    margins = [absolute_margin(margin, relative, means[a]) for a, _ in index]
    pairs = tuple(
        _pair(
            names[a],
            names[b],
            centre[k],
            half[k],
            p[k],
            margins[k],
            bool(differences[k].any()),
            partial(_additional_seeds, by_seed=by_seed[k], fixed=fixed[k], n=n, analyses=analyses, reaches=reaches),
        )
        for k, (a, b) in enumerate(index)
    )
    won = [pair for pair in pairs if pair.verdict is PairVerdict.WINS]
    ahead, beaten = {pair.a for pair in won} - {baseline}, {pair.b for pair in won}
    leads = ahead if baseline is not None and ahead else set(names) - beaten
    return Verdict(pairs, tuple(names[i] for i in order if names[i] in leads))


def _pair(
    a: str,
    b: str,
    centre: float,
    half: float,
    p: float,
    margin: float,
    differ: bool,
    enough: Callable[[float], int | None],
) -> Pair:
    """Return the comparison of two entries, with its verdict.

    Args:
        a: name of the entry with the better mean.
        b: name of the other entry.
        centre: mean difference.
        half: half-width of the simultaneous confidence interval.
        p: adjusted p-value.
        margin: the smallest difference that matters.
        differ: the entries differ under at least one seed.
        enough: function that returns the number of additional seeds which reduce the half-width to its argument, or
            None if no possible number does.
    """
    low, high = centre - half, centre + half
    verdict = PairVerdict.INCONCLUSIVE
    if not differ:
        verdict = PairVerdict.TIES
    elif low > 0:
        verdict = PairVerdict.WINS if centre > margin else PairVerdict.SLIGHTLY_AHEAD
    elif -margin < low and high < margin:
        verdict = PairVerdict.TIES
    # At this half-width, the interval excludes zero or fits inside the margin.
    need = max(abs(centre), margin - abs(centre))
    more = enough(need) if verdict is PairVerdict.INCONCLUSIVE and need > 0 else None
    return Pair(a, b, float(centre), (float(low), float(high)), float(p), verdict, more)


def _additional_seeds(
    need: float,
    by_seed: float,
    fixed: float,
    n: int,
    analyses: Sequence[tuple[int, int, float]],
    reaches: Sequence[float],
) -> int | None:
    """Return the number of additional seeds that reduce the half-width of an interval to `need`.

    Args:
        need: required half-width.
        by_seed: variance of the difference over seeds.
        fixed: part of the squared standard error that does not decrease with more seeds.
        n: current number of seeds.
        analyses: ranges of seeds in which another analysis is possible; see `remaining_analyses`.
        reaches: half-width of the intervals at each of these analyses, in standard errors.

    Returns:
        The number of additional seeds, or None if no possible analysis suffices.
    """
    for (low, high, _), reach in zip(analyses, reaches, strict=True):
        room = (need / reach) ** 2 - fixed
        required = max(low, math.ceil(by_seed / room)) if room > 0 else math.inf
        if required <= high:
            total = high if high < MOST_SEEDS else required
            return int(total - n)
    return None


def own_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % confidence interval (Student's t) of one entry's mean over seeds.

    It is not adjusted for comparisons with other entries.
    """
    n = len(values)
    mean, half = float(np.mean(values)), float(stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(n))
    return mean - half, mean + half


def detectable_difference(entries: int, seeds: int, baseline: bool = False) -> float:
    """Return the minimum detectable difference at 80 % power, in standard deviations of the paired difference.

    The threshold of the test is the max-T threshold of equally good entries with normal noise, found by simulation. The
    power is that of a Student's t test with this threshold.

    Args:
        entries: number of entries.
        seeds: number of final seeds.
        baseline: compare all entries with one baseline, instead of all pairs.
    """
    noise = np.random.default_rng(0).standard_normal((entries, seeds))
    index = [(a, b) for a, b in combinations(range(entries), 2) if a == 0 or not baseline]
    largest = sign_flip_distribution(np.array([noise[a] - noise[b] for a, b in index]))[3]
    reach = float(np.quantile(largest[0], 1 - planned_level(seeds), method="higher"))
    return (reach + float(stdtrit(seeds - 1, 0.8))) / math.sqrt(seeds)
