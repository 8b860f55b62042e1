"""Search for the learning rate alone, on a logarithmic grid."""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from gradprix.spaces import Log

from .tuner import REPLICATED, SPREAD, Floats, Point, Search, split_trials

MANTISSAS = (1.0, 1.5, 2.2, 3.3, 4.7, 6.8)
"""Six learning rates per decade, evenly spaced on a logarithmic scale and rounded to two digits."""
MIN_FINALIST_GAP = 2
"""Minimum distance between finalists, in grid steps. Adjacent learning rates perform too similarly for the choice
between them to matter. If all finalists were adjacent, the noise of the first seed would decide which region of the
grid the other seeds test."""


def grid_learning_rate(point: int, offset: float = 0.0) -> float:
    """Return the learning rate at a grid point.

    Args:
        point: index of the grid point: 0 is a learning rate of 1, and every 6 points are a decade.
        offset: upward shift of the grid, in grid steps.
    """
    decade, step = divmod(point, len(MANTISSAS))
    base = float(f"{MANTISSAS[step]}e{decade}")
    return base if offset == 0 else float(f"{base * 10 ** (offset / len(MANTISSAS)):.3g}")


def nearest_grid_point(learning_rate: float, offset: float = 0.0) -> int:
    """Return the index of the grid point nearest to a learning rate, on a grid shifted up by `offset` grid steps."""
    return round(len(MANTISSAS) * math.log10(learning_rate) - offset)


def grid_bounds(space: Log) -> tuple[int, int]:
    """Return the indices of the lowest and the highest grid point within a search space.

    The search starts between them, and may go beyond them later.

    Raises:
        ValueError: if no grid point lies within the space.
    """
    low = math.ceil(len(MANTISSAS) * math.log10(space.low) - 0.1)
    high = math.floor(len(MANTISSAS) * math.log10(space.high) + 0.1)
    if low > high:
        raise ValueError(
            f"the search space of the learning rate, {space.low:g} to {space.high:g}, contains no point of the grid "
            f"({', '.join(map(str, MANTISSAS))} times a power of ten): give a wider space."
        )
    return low, high


def grid_between(low: float, high: float) -> list[float]:
    """Return all learning rates of the grid that lie between `low` and `high`, both included."""
    points = range(nearest_grid_point(low) - 1, nearest_grid_point(high) + 2)
    return [rate for point in points if low <= (rate := grid_learning_rate(point)) <= high]


def spread_points(space: Log, default: float, count: int = SPREAD) -> list[int]:
    """Return up to `count` grid points, evenly spaced over the search space.

    The point nearest to the default learning rate takes the place of the evenly spaced point next to it. Duplicates
    are dropped.
    """
    low, high = grid_bounds(space)
    default_point = min(max(nearest_grid_point(default), low), high) if default > 0 else low
    if count == 1:
        return [default_point]
    points = [round(low + (high - low) * i / (count - 1)) for i in range(count)]
    nearest = min(range(count), key=lambda i: abs(points[i] - default_point))
    points[nearest] = default_point
    return list(dict.fromkeys(points))


def _standardize(table: Floats) -> Floats:
    """Return the z-score of each finalist: its mean over seeds minus the mean of all finalists, in standard errors.

    The standard error is that of a two-way table without interaction, so that it contains neither the effect of the
    finalist nor that of the seed.

    Args:
        table: scores of shape `[finalists, seeds, kinds of score]`.

    Returns:
        z-scores of shape `[finalists, kinds of score]`.
    """
    finalists, seeds, _ = table.shape
    means = table.mean(1) - table.mean((0, 1))
    rest = table - table.mean(0) - means[:, None]  # without the additive effects of finalist and seed
    variance = (rest**2).sum((0, 1)) / max(1, (finalists - 1) * (seeds - 1)) / seeds
    return np.asarray(means / np.sqrt(np.maximum(variance, 1e-12 * (table**2).mean((0, 1)) + 1e-300)), np.float64)


def round_learning_rate(learning_rate: float) -> float:
    """Round a learning rate to two significant digits."""
    return float(f"{learning_rate:.1e}")


Key = TypeVar("Key", int, Point)


def sort_by_value(values: Mapping[Key, Any]) -> list[Key]:
    """Sort points by ascending value, so that the best is first; ties go to the smaller learning rate."""
    return sorted(values, key=lambda point: (values[point], point))


def neighbours_of_best(losses: Mapping[int, float], halving: bool) -> list[int]:
    """Return two untried grid points, one on each side of the best point.

    If a point was already tried, the next untried point further away from the best is used. If the best point is at an
    edge of the tried range, the distance to its only neighbour is used on both sides.

    Args:
        losses: validation loss of each tried grid point.
        halving: choose points midway between the best point and its tried neighbours, instead of adjacent to it.
    """
    best = sort_by_value(losses)[0]
    below = max((point for point in losses if point < best), default=None)
    above = min((point for point in losses if point > best), default=None)
    gap_below = best - below if below is not None else above - best if above is not None else 2
    gap_above = above - best if above is not None else gap_below
    points = []
    for side, gap in ((-1, gap_below), (1, gap_above)):
        point = best + side * (max(1, round(gap / 2)) if halving else 1)
        while point in losses:
            point += side
        points.append(point)
    return points


def select_finalists(losses: Mapping[int, float]) -> list[int]:
    """Return the `REPLICATED` grid points to run on more seeds, by ascending loss.

    They are at least `MIN_FINALIST_GAP` grid steps apart. If there are too few such points, the best of the remaining
    points follow.
    """
    chosen: list[int] = []
    for point in sort_by_value(losses):
        if all(abs(point - other) >= MIN_FINALIST_GAP for other in chosen):
            chosen.append(point)
    rest = [point for point in sort_by_value(losses) if point not in chosen]
    return (chosen + rest)[:REPLICATED]


class LearningRateSearch(Search):
    """Search for the learning rate on a logarithmic grid.

    After the first phase, which spreads points over the range, the second phase tries the points midway between the
    best point and its neighbours. Later phases try the points adjacent to the best.

    Args:
        space: initial search range. The search leaves it if the best point is at its edge.
        default: default learning rate; the grid point nearest to it is tried.
        trials: number of trials that the search will request.
        offset: upward shift of the grid, in grid steps.

    Raises:
        ValueError: if no grid point lies within the space.
    """

    def __init__(self, space: Log, default: float, trials: int, offset: float = 0.0) -> None:
        points, replicates = split_trials(trials)
        self.initial = spread_points(space, default, min(SPREAD, points))
        self.offset = offset
        super().__init__(len(self.initial), points, replicates)

    def _spread_points(self) -> list[Point]:
        return self._as_points(self.initial)

    def _points_near_best(self, count: int) -> list[Point]:
        return self._as_points(neighbours_of_best(self._grid_losses(), halving=self.finished_phases == 1)[:count])

    def _finalists(self) -> list[Point]:
        return self._as_points(select_finalists(self._grid_losses()))

    def _rank(self, values: Mapping[Point, Any]) -> list[Point]:
        return sort_by_value(values)

    def _choose(self, scores: Mapping[Point, Floats]) -> Point:
        """Return the weighted geometric mean of the finalists' learning rates.

        The weights are the softmax of the negative sum of the z-scores of loss and metric. If the finalists do not
        differ significantly, their mean varies less between seeds than the best of them. The loss contributes because
        it is less noisy than the metric. Finalists that diverged on any seed are left out.

        Args:
            scores: losses and metrics of each finalist, of shape `[seeds, 2]`; smaller is better.
        """
        finite = {point: each for point, each in scores.items() if np.isfinite(each).all()}
        if not finite:
            return super()._choose(scores)
        table = np.array(list(finite.values()))  # [finalists, seeds, 2]
        logits = -_standardize(table).sum(-1)
        weights = np.exp(logits - logits.max())
        rates = np.log10([dict(point)["lr"] for point in finite])
        return (("lr", round_learning_rate(10 ** float(weights @ rates / weights.sum()))),)

    def _edges(self, point: Point) -> tuple[str, ...]:
        tried = [dict(each)["lr"] for each in self.losses]
        return () if min(tried) < dict(point)["lr"] < max(tried) else ("lr",)

    def _as_points(self, grid_points: list[int]) -> list[Point]:
        return [(("lr", grid_learning_rate(point, self.offset)),) for point in grid_points]

    def _grid_losses(self) -> dict[int, float]:
        return {nearest_grid_point(dict(point)["lr"], self.offset): loss for point, loss in self.losses.items()}
