"""Who wins, who ties and what is not known: all pairs at once, from paired runs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit

from .alpha_spending import allowed, later
from .permutation_test import LEVEL, Parts, flip, step_down, thresholds

MOST_SEEDS = 300
"""Final seeds of an entry at most: a race's seeds are numbered so that up to this many never meet others."""
Words = Literal["wins", "slightly ahead", "ties", "not settled"]


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
        more_seeds: about how many further seeds would settle it, up to the next look that can; None when settled, or
            when not even as many as there can be would.
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
    """The pairs that were compared, and the leading group, best mean first.

    Args:
        pairs: all, or those with the baseline.
        leaders: the entries that nothing wins against. With a baseline, those that win against it, and where there are
            none, it and those that it does not win against.
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
) -> Verdict:
    """Compare every entry with every other, or with a baseline alone.

    Args:
        values: for each entry, the metric under the same seeds in the same order.
        higher_is_better: the metric's direction.
        margin: the smallest difference that matters, in the metric's units.
        relative: whether `margin` is a share of the better entry's mean instead.
        level: the chance of any false word that this look may take.
        spent: what this look and those before it have taken together; `level` when None.
        baseline: the entry that the others are compared with; chosen before anything was seen.
        parts: for each entry, the metric on parts of an official test set, `[seeds][parts]`: then intervals are for
            other seeds *and* other test examples.

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
    index = [(a, b) for a, b in index if baseline in (None, names[a], names[b])]
    turn = 1.0 if higher_is_better else -1.0
    differences = np.array([turn * (table[a] - table[b]) for a, b in index])
    crossed = None
    if parts is not None:
        each = np.array([parts[name] for name in names], dtype=np.float64)
        crossed = Parts.of(np.array([turn * (each[a] - each[b]) for a, b in index]))
    centre, error, statistic, largest = flip(differences, crossed)
    n = table.shape[1]
    looks = later(n, level if spent is None else spent, MOST_SEEDS)
    reach, *reaches = thresholds(differences, largest, [level, *(left for *_, left in looks)], crossed)
    half = reach * error
    # What more seeds make smaller, and what they do not: the part of the test examples.
    by_seed = differences.var(axis=1, ddof=1)
    fixed = np.maximum(error**2 - by_seed / n, 0)
    p = step_down(statistic, largest)
    margins = [margin * abs(means[a]) if relative else margin for a, _ in index]
    pairs = tuple(
        _pair(
            names[a],
            names[b],
            centre[k],
            half[k],
            p[k],
            margins[k],
            bool(differences[k].any()),
            partial(_enough, by_seed=by_seed[k], fixed=fixed[k], n=n, looks=looks, reaches=reaches),
        )
        for k, (a, b) in enumerate(index)
    )
    won = [pair for pair in pairs if pair.words == "wins"]
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
    low, high = centre - half, centre + half
    words: Words = "not settled"
    if not differ:
        words = "ties"
    elif low > 0:
        words = "wins" if centre > margin else "slightly ahead"
    elif -margin < low and high < margin:
        words = "ties"
    # Until the interval clears zero, or fits inside the margin.
    need = max(abs(centre), margin - abs(centre))
    more = enough(need) if words == "not settled" and need > 0 else None
    return Pair(a, b, float(centre), (float(low), float(high)), float(p), words, more)


def _enough(
    need: float,
    by_seed: float,
    fixed: float,
    n: int,
    looks: Sequence[tuple[int, int, float]],
    reaches: Sequence[float],
) -> int | None:
    """How many seeds beyond n make an interval reach no further than `need`, at the level of the look they are for.

    Args:
        need: how far it may reach.
        by_seed: the variance of a difference over seeds.
        fixed: the part of the squared error that more seeds leave as it is.
        n: how many seeds there are.
        looks: what is left: from, to, level.
        reaches: each look's threshold.
    """
    for (low, high, _), reach in zip(looks, reaches, strict=True):
        room = (need / reach) ** 2 - fixed
        wanted = max(low, math.ceil(by_seed / room)) if room > 0 else math.inf
        if wanted <= high:
            looked = high if high < MOST_SEEDS else wanted
            return int(looked - n)
    return None


def own_interval(values: Sequence[float]) -> tuple[float, float]:
    """An entry's own 95 % interval for its mean over seeds (Student's t)."""
    n = len(values)
    mean, half = float(np.mean(values)), float(stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(n))
    return mean - half, mean + half


def detectable(entries: int, seeds: int, baseline: bool = False) -> float:
    """The smallest difference a race can tell four times in five, in standard deviations of the paired difference.

    The threshold is the max-T one for as many equal entries on normal noise; the rest is Student's t.

    Args:
        entries: how many race.
        seeds: final seeds of each.
        baseline: whether one of them is compared with the others, and no others with each other.
    """
    noise = np.random.default_rng(0).standard_normal((entries, seeds))
    index = [(a, b) for a, b in combinations(range(entries), 2) if a == 0 or not baseline]
    largest = flip(np.array([noise[a] - noise[b] for a, b in index]))[3]
    reach = float(np.quantile(largest[0], 1 - allowed(seeds), method="higher"))
    return (reach + float(stdtrit(seeds - 1, 0.8))) / math.sqrt(seeds)
