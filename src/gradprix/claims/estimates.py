"""Measured quantities: estimates with their 95 % confidence intervals."""

from dataclasses import dataclass
from math import exp
from typing import Any

import numpy as np
from scipy.special import stdtrit
from scipy.stats import binomtest, bootstrap, sem


@dataclass(frozen=True)
class Measured:
    """A measured quantity with its confidence interval.

    It is formatted as `0.52 (0.49 to 0.55)`, or as a single number if the estimate and both ends are printed alike.

    Args:
        what: description of the quantity, with its unit.
        effect: the estimate.
        ci95: its 95 % confidence interval; both ends equal the estimate for a deterministic quantity.
        n: number of seeds, starting points or tasks.
    """

    what: str
    effect: float
    ci95: tuple[float, float]
    n: int

    def __format__(self, spec: str) -> str:
        low, middle, high = (_format_number(x, spec or ".2f") for x in (self.ci95[0], self.effect, self.ci95[1]))
        return middle if low == middle == high else f"{middle} ({low} to {high})"


def _format_number(value: float, spec: str) -> str:
    text = f"{value:{spec}}"
    return text.replace("-", "−", 1) if text.startswith("-") and text.strip("-0.%") else text.removeprefix("-")


def exact(effect: float, n: int = 1, what: str = "") -> Measured:
    """Return a deterministic quantity, whose interval has zero width."""
    return Measured(what, float(effect), (float(effect), float(effect)), n)


def mean(values: Any, what: str = "") -> Measured:
    """Return the mean of independent values, one for each seed, with Student's t interval."""
    sample = np.asarray(values, dtype=np.float64)
    middle, half = float(sample.mean()), float(stdtrit(len(sample) - 1, 0.975) * sem(sample))
    return Measured(what, middle, (middle - half, middle + half), len(sample))


def geometric_mean(logarithms: Any) -> Measured:
    """Return the geometric mean of ratios, given their logarithms, with Student's t interval on the logarithms."""
    m = mean(logarithms)
    return Measured("", exp(m.effect), (exp(m.ci95[0]), exp(m.ci95[1])), m.n)


def ratio_of_means(numerators: Any, denominators: Any) -> Measured:
    """Return the ratio of the means of paired values, with the interval of the delta method and Student's t.

    Args:
        numerators: one value for each seed.
        denominators: one value for each seed. The interval holds if their mean is many standard errors from zero.
    """
    above, below = (np.asarray(values, dtype=np.float64) for values in (numerators, denominators))
    ratio = float(above.mean() / below.mean())
    residual = mean((above - ratio * below) / below.mean())
    return Measured("", ratio, (ratio + residual.ci95[0], ratio + residual.ci95[1]), len(above))


def median(values: Any, draws: int = 2_000) -> Measured:
    """Return the median of independent values with a percentile bootstrap interval, for skewed distributions.

    Args:
        values: the values.
        draws: number of bootstrap samples.
    """
    sample, generator = np.asarray(values, dtype=np.float64), np.random.default_rng(0)
    result = bootstrap((sample,), np.median, n_resamples=draws, method="percentile", random_state=generator)
    low, high = result.confidence_interval
    return Measured("", float(np.median(sample)), (float(low), float(high)), len(sample))


def proportion(count: int, total: int) -> Measured:
    """Return a proportion with its 95 % interval (Clopper & Pearson 1934, doi:10.1093/biomet/26.4.404)."""
    low, high = binomtest(count, total).proportion_ci(0.95)
    return Measured("", count / total, (float(low), float(high)), total)
