"""Shifts of runs that are repeated elsewhere, and what is only noise between seeds."""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import pytest

from gradprix.race.seed_noise import difference_deviation, largest_mean

LEVEL, SEEDS = 1e-4, 32


def is_shifted(differences: Sequence[float], deviation: float, margin: float = 1.0) -> bool:
    return abs(fmean(differences)) > largest_mean(differences, deviation, margin, LEVEL)


@pytest.mark.parametrize(
    ("runs", "share", "shift", "low", "high"),
    [
        (3, 1.0, 0.0, 0.0, 0.005),
        (SEEDS, 1.0, 0.0, 0.0, 0.01),
        (SEEDS, 0.25, 0.0, 0.0, 0.005),
        (1, 1.0, 4.0, 0.0, 0.6),
        (3, 1.0, 4.0, 0.75, 1.0),
        (3, 1.0, 1.0, 0.0, 0.05),
        (SEEDS, 1.0, 1.0, 0.4, 1.0),
        (SEEDS, 0.25, 1.0, 0.95, 1.0),
    ],
)
def test_shifts_are_found_with_these_probabilities(
    runs: int, share: float, shift: float, low: float, high: float
) -> None:
    """A share of the repetitions end elsewhere as other seeds do. Values are in deviations between seeds.

    The pages on bundles and on the published suite state them in words.
    """
    rng, found, count = np.random.default_rng(0), 0, 2_000
    for _ in range(count):
        stated = rng.standard_normal(SEEDS)
        again = np.where(rng.random(SEEDS) < share, rng.standard_normal(SEEDS), stated)
        deviation = difference_deviation(float(stated.var(ddof=1)))
        found += is_shifted((again - stated - shift)[:runs].tolist(), deviation)
    assert low <= found / count <= high


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.6, 0.6], False),
        ([0.6] * 7, False),
        ([0.6] * 8, True),
        ([0.4] * 8, False),
        ([0.6, 0.0] * 8, False),
        ([4.0], True),
        ([-2.5] * 3, True),
    ],
)
def test_few_equal_differences_are_no_shift(differences: list[float], expected: bool) -> None:
    """A metric of few test examples has few values, so that some runs may all differ by one example."""
    assert is_shifted(differences, deviation=1.0) is expected


def test_the_bound_needs_more_if_the_deviation_is_an_estimate() -> None:
    known, estimated = (largest_mean([0.0] * 4, 1.0, 0.1, LEVEL, freedom) for freedom in (math.inf, 7))
    assert known < estimated
