"""Search of several hyperparameters: scrambled Sobol points."""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from gradprix.spaces import Axis, Choice

from .tuner import REFINE, REPLICATED, Point, Search, split_trials

EDGE_BAND = 0.03
"""Outermost fraction of a range that counts as its edge."""
MAX_REPLICATES = 3
"""Maximum number of additional seeds for the best points; further trials go to more points."""
MAX_DRAWS = 100
"""Maximum number of draws per new point; in small discrete spaces most draws repeat a known point."""


class SobolSearch(Search):
    """Search of several dimensions: the default and Sobol points, then points in a shrinking box around the best.

    Sobol 1967, doi:10.1016/0041-5553(67)90144-9; scrambled as in Owen 1995, doi:10.1007/978-1-4612-2552-2_19.

    Args:
        space: search range of each hyperparameter.
        default: default value of each, the first point that is tried.
        trials: exact number of trials.
        rng_seed: seed of the Sobol sequence.

    Raises:
        ValueError: if the space has too few points.
    """

    def __init__(self, space: Mapping[str, Axis], default: Mapping[str, Any], trials: int, rng_seed: int) -> None:
        points, replicates = split_trials(trials, MAX_REPLICATES)
        spread = max(1, points - REFINE)
        super().__init__(spread, points, replicates)
        self.space, self.default, self.rng_seed = space, default, rng_seed
        self.half_distance = 0.5 * spread ** (-1 / len(space))  # between neighbours of the first phase
        choices = [axis for axis in space.values() if isinstance(axis, Choice)]
        if len(choices) == len(space) and math.prod([len(axis.values) for axis in choices]) < points:
            raise self._too_few_points()

    @cached_property
    def sequence(self) -> Any:
        """The Sobol sequence, `[dimensions]` at each draw."""
        from scipy.stats.qmc import Sobol  # takes a second to import, and a grid search does not need it

        return Sobol(len(self.space), scramble=True, rng=self.rng_seed)

    def _spread_points(self) -> list[Point]:
        first = self._from_unit([axis.to_unit(self.default[name]) for name, axis in self.space.items()])
        return [first, *self._draw_new(self.phase.trials - 1, {first})]

    def _points_near_best(self, count: int) -> list[Point]:
        losses = self.losses
        half = self.half_distance / 2 ** (self.finished_phases - 1)
        return self._draw_new(count, set(losses), self._to_unit(self._rank(losses)[0]), half)

    def _finalists(self) -> list[Point]:
        return self._rank(self.losses)[:REPLICATED]

    def _edges(self, point: Point) -> tuple[str, ...]:
        axes = zip(self.space.items(), self._to_unit(point), strict=True)
        return tuple(n for (n, axis), u in axes if not isinstance(axis, Choice) and not EDGE_BAND <= u <= 1 - EDGE_BAND)

    def _from_unit(self, coordinates: Any) -> Point:
        axes = zip(self.space.items(), coordinates, strict=True)
        return tuple((name, axis.from_unit(float(u))) for (name, axis), u in axes)

    def _to_unit(self, point: Point) -> Any:
        return np.array([self.space[name].to_unit(value) for name, value in point])

    def _draw_new(self, count: int, known: set[Point], centre: Any = 0.5, half: float = 0.5) -> list[Point]:
        """Return `count` new points within a box, or elsewhere in the space if the box has too few.

        Raises:
            ValueError: if the space has too few.
        """
        points: list[Point] = []
        for middle, width in ((centre, half), (0.5, 0.5)):
            for _ in range(MAX_DRAWS * count):
                if len(points) == count:
                    break
                point = self._from_unit(middle + width * (2 * self.sequence.random(1)[0] - 1))
                if point not in known and point not in points:
                    points.append(point)
        if len(points) < count:
            raise self._too_few_points()
        return points

    def _too_few_points(self) -> ValueError:
        return ValueError(
            f"the space of {', '.join(self.space)} has fewer different points than there are trials: "
            "give a wider space, or fewer trials."
        )
