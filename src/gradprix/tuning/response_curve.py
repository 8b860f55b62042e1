"""Response curve of an entry: the validation metric as a smooth function of the learning rate.

Gaussian-process regression (Rasmussen & Williams 2006, algorithm 2.1, ISBN 026218253X) on the logarithm of the learning
rate, with a random effect for each tuning seed. All tuning trials of an entry contribute, whatever their seeds, so that
the curve is less noisy than any single trial.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean, median
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from .tuner import Floats

LENGTH = 0.5
"""Length scale of the kernel in decades: learning rates that are much closer than this perform alike."""
SMALLEST_CLIP = 8.0
"""Scores are clipped at a distance from the best score of the same seed, so that very bad learning rates far from the
optimum do not distort the curve near the optimum. The distance is at least this number of noise standard deviations."""
CLIPPED_MARGINS = 3.0
RESOLUTION = 60
"""Number of points per decade at which the curve is evaluated."""


class TunedScore(NamedTuple):
    """Score of a tuning run.

    Args:
        learning_rate: learning rate of the run.
        seed: tuning seed of the run.
        metric: validation metric, with its sign chosen so that smaller is better; infinite if the run diverged.
    """

    learning_rate: float
    seed: int
    metric: float


def noise_deviation(entries: Sequence[Sequence[TunedScore]]) -> float | None:
    """Estimate the standard deviation of a single run's metric near the optimum: the median over entries.

    For each entry, the estimate is the residual of a two-way table of learning rates and seeds. Only the two best
    learning rates that ran on the same seeds enter, because worse learning rates may be at the edge of stability, where
    the deviation is much larger.

    Args:
        entries: the scores of each entry.

    Returns:
        The standard deviation, or None if no entry ran two learning rates on the same two seeds.
    """
    deviations = [each for scores in entries if (each := _interaction_deviation(scores)) is not None]
    return median(deviations) if deviations else None


def _interaction_deviation(scores: Sequence[TunedScore]) -> float | None:
    by_rate: dict[float, dict[int, float]] = {}
    for score in scores:
        if math.isfinite(score.metric):
            by_rate.setdefault(score.learning_rate, {})[score.seed] = score.metric
    tables: dict[tuple[int, ...], list[list[float]]] = {}
    for by_seed in by_rate.values():
        if len(by_seed) > 1:
            tables.setdefault(tuple(sorted(by_seed)), []).append([by_seed[seed] for seed in sorted(by_seed)])
    squares, freedom = 0.0, 0
    for rows in tables.values():
        table = np.array(sorted(rows, key=fmean)[:2])
        rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
        squares, freedom = squares + float((rest**2).sum()), freedom + (table.shape[0] - 1) * (table.shape[1] - 1)
    return math.sqrt(squares / freedom) if freedom else None


@dataclass(frozen=True)
class ResponseCurve:
    """Smoothed validation metric over the tried range of learning rates; smaller is better.

    Args:
        positions: decimal logarithms of the learning rates at which the curve was evaluated, ascending.
        metrics: smoothed metric at each position.
        seed_effects: effect of each tuning seed: how much its metric exceeds that of an average seed.
    """

    positions: Floats
    metrics: Floats
    seed_effects: Mapping[int, float]

    @classmethod
    def fit(cls, scores: Sequence[TunedScore], noise: float, margin: float) -> "ResponseCurve | None":
        """Fit the curve to the tuning runs of an entry. Returns None if all runs diverged.

        Args:
            scores: scores of the tuning runs.
            noise: standard deviation of a single run's metric near the optimum; see `noise_deviation`.
            margin: the smallest difference of the metric that matters.
        """
        best: dict[int, float] = {}
        for score in scores:
            best[score.seed] = min(score.metric, best.get(score.seed, math.inf))
        scores = [score for score in scores if math.isfinite(best[score.seed])]
        if not scores:
            return None
        x = np.log10([score.learning_rate for score in scores])
        seeds = np.array([score.seed for score in scores])
        clip = max(SMALLEST_CLIP * noise, CLIPPED_MARGINS * margin) or 1.0
        y = np.array([min(score.metric, best[score.seed] + clip) for score in scores])
        level = float(y.mean())
        # In units of the clip, so that metrics of any size are well conditioned. With less noise than an eighth of it,
        # the curve would overshoot at a kink of clipped scores.
        noise = max(noise / clip, 1 / SMALLEST_CLIP)
        same_seed = 1.0 * (seeds[:, None] == seeds)
        covariance = _kernel(x, x) + same_seed + noise**2 * np.eye(len(y))
        weights = cho_solve(cho_factor(covariance), (y - level) / clip)
        positions = np.linspace(x.min(), x.max(), max(2, 1 + round(RESOLUTION * float(np.ptp(x)))))
        metrics = np.asarray(level + clip * _kernel(positions, x) @ weights, np.float64)
        return cls(positions, metrics, dict(zip(seeds.tolist(), (clip * same_seed @ weights).tolist(), strict=True)))

    def __call__(self, learning_rate: float) -> float:
        """Return the smoothed metric at a learning rate; outside the tried range, the curve continues as a constant."""
        return float(np.interp(math.log10(learning_rate), self.positions, self.metrics))


def learning_rate_tolerance(
    curve: ResponseCurve, scores: Sequence[TunedScore], margin: float, tuned: float
) -> tuple[float, float]:
    """Return the learning-rate tolerance: the range around the tuned learning rate that performs almost as well.

    A learning rate is in the range if both the response curve and the mean of its own runs are within `margin` of the
    best. The curve is less noisy than the mean, but it smooths over the edge of stability, where one learning rate
    trains and the next diverges. For the same reason, the ends of the range are learning rates that were tried, or the
    tuned one.

    Args:
        curve: response curve of the entry.
        scores: scores of the entry's tuning runs.
        margin: the smallest difference of the metric that matters.
        tuned: tuned learning rate.

    Returns:
        The lowest and the highest learning rate of the range.
    """
    runs: dict[float, list[float]] = {}
    for score in scores:
        adjusted = score.metric - curve.seed_effects.get(score.seed, 0.0)
        runs.setdefault(score.learning_rate, []).append(adjusted)
    limit = min(curve(rate) for rate, adjusted in runs.items() if np.isfinite(adjusted).all()) + margin

    def is_within(rate: float) -> bool:
        return curve(rate) <= limit and float(np.mean(runs[rate])) <= limit

    below = takewhile(is_within, sorted((rate for rate in runs if rate <= tuned), reverse=True))
    above = takewhile(is_within, sorted(rate for rate in runs if rate >= tuned))
    return min(below, default=tuned), max(above, default=tuned)


def _kernel(a: Floats, b: Floats) -> Floats:
    return np.asarray(0.25 * np.exp(-0.5 * ((a[:, None] - b) / LENGTH) ** 2), np.float64)
