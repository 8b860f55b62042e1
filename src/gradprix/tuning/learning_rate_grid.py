"""Search of the learning rate alone on a logarithmic grid; `make_tuner` combines two of them."""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from gradprix.spaces import Log

from .tuner import REPLICATED, SPREAD, Floats, Point, Search, split_trials

MANTISSAS = (1.0, 1.5, 2.2, 3.3, 4.7, 6.8)
"""Six learning rates per decade, evenly spaced on a logarithmic scale and rounded to two digits."""
MIN_FINALIST_GAP = 2
"""Minimum distance, in grid steps, between the points that run on more seeds: neighbours are too similar for the choice
between them to matter, and with three neighbours the noise of one seed would decide which region they are in."""


def grid_learning_rate(point: int, offset: float = 0.0) -> float:
    """Return the learning rate of a grid point: 0 is 1, 6 is 10; an offset shifts the grid up, in grid steps."""
    decade, step = divmod(point, len(MANTISSAS))
    base = float(f"{MANTISSAS[step]}e{decade}")
    return base if offset == 0 else float(f"{base * 10 ** (offset / len(MANTISSAS)):.3g}")


def nearest_grid_point(learning_rate: float, offset: float = 0.0) -> int:
    """Return the grid point nearest to a learning rate."""
    return round(len(MANTISSAS) * math.log10(learning_rate) - offset)


def grid_bounds(space: Log) -> tuple[int, int]:
    """Return the lowest and highest grid point within a space, where the search starts; it may extend beyond them.

    Raises:
        ValueError: if there is none.
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
    """Return all learning rates of the grid from `low` to `high`."""
    points = range(nearest_grid_point(low) - 1, nearest_grid_point(high) + 2)
    return [rate for point in points if low <= (rate := grid_learning_rate(point)) <= high]


def spread_points(space: Log, default: float, count: int = SPREAD) -> list[int]:
    """Return grid points evenly spaced over the space, including the one nearest to the default learning rate."""
    low, high = grid_bounds(space)
    default_point = min(max(nearest_grid_point(default), low), high) if default > 0 else low
    if count == 1:
        return [default_point]
    points = [round(low + (high - low) * i / (count - 1)) for i in range(count)]
    nearest = min(range(count), key=lambda i: abs(points[i] - default_point))
    points[nearest] = default_point
    return list(dict.fromkeys(points))


def _standardize(table: Floats) -> Floats:
    """Return each finalist's mean, less that of all, in standard errors.

    Args:
        table: `[finalists, seeds, scores]`.

    Returns:
        `[finalists, scores]`.
    """
    finalists, seeds, _ = table.shape
    means = table.mean(1) - table.mean((0, 1))
    rest = table - table.mean(0) - means[:, None]  # without the additive effects of finalist and seed
    variance = (rest**2).sum((0, 1)) / max(1, (finalists - 1) * (seeds - 1)) / seeds
    return np.asarray(means / np.sqrt(np.maximum(variance, 1e-12 * (table**2).mean((0, 1)) + 1e-300)), np.float64)


def round_learning_rate(learning_rate: float) -> float:
    """Round to two significant digits."""
    return float(f"{learning_rate:.1e}")


Key = TypeVar("Key", int, Point)


def sort_by_value(values: Mapping[Key, Any]) -> list[Key]:
    """Sort points by their values, best first; the smaller learning rate first where values are equal."""
    return sorted(values, key=lambda point: (values[point], point))


def neighbours_of_best(losses: Mapping[int, float], halving: bool) -> list[int]:
    """Return two untried grid points, one on each side of the best: midway to its neighbours, or adjacent to it.

    At an edge of the tried range there is no neighbour: the outward distance equals the inward one.
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
    """Return the best grid points that are not neighbours, then, if those are too few, the best of the rest."""
    chosen: list[int] = []
    for point in sort_by_value(losses):
        if all(abs(point - other) >= MIN_FINALIST_GAP for other in chosen):
            chosen.append(point)
    rest = [point for point in sort_by_value(losses) if point not in chosen]
    return (chosen + rest)[:REPLICATED]


class LearningRateSearch(Search):
    """Search of the learning-rate grid: first midway between the best point and its neighbours, then adjacent to it.

    Args:
        space: initial search range; the search may leave it if the best point is at its edge.
        default: a learning rate to include approximately.
        trials: exact number of trials.
        offset: shift of the grid, in grid steps.

    Raises:
        ValueError: if the space has no grid point.
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
        """Return the weighted mean of the finalists' learning rates, on the logarithmic scale.

        The weights are the softmax of the z-scores of metric and loss: among finalists that the seeds do not separate,
        a mean is a steadier choice than the best of them, and the loss, which is less noisy, helps to separate them.
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
