"""Search for several hyperparameters with scrambled Sobol points."""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from gradprix.spaces import Axis, Choice

from .tuner import REFINE, REPLICATED, Point, Search, split_trials

EDGE_BAND = 0.03
"""A value within this fraction of either end of its search range counts as being at the edge."""
MAX_REPLICATES = 3
"""Maximum number of additional seeds for the best points. Trials beyond that try more points instead."""
MAX_DRAWS = 100
"""Maximum number of draws per new point. In small discrete spaces, most draws repeat a point that was already tried."""


class SobolSearch(Search):
    """Search for several hyperparameters.

    The first phase tries the default setting and Sobol points of the whole space. Later phases try Sobol points in a
    box around the best point, whose sides are halved from phase to phase.

    Sobol 1967, doi:10.1016/0041-5553(67)90144-9; scrambled as in Owen 1995, doi:10.1007/978-1-4612-2552-2_19.

    Args:
        space: search range of each hyperparameter.
        default: default value of each hyperparameter: the first point that is tried.
        trials: number of trials that the search will request.
        rng_seed: seed of the Sobol sequence.

    Raises:
        ValueError: if the space has fewer points than the search needs.
    """

    def __init__(self, space: Mapping[str, Axis], default: Mapping[str, Any], trials: int, rng_seed: int) -> None:
        points, replicates = split_trials(trials, MAX_REPLICATES)
        spread = max(1, points - REFINE)
        super().__init__(spread, points, replicates)
        self.space, self.default, self.rng_seed = space, default, rng_seed
        self.half_distance = 0.5 * spread ** (-1 / len(space))  # half the spacing of the first phase
        choices = [axis for axis in space.values() if isinstance(axis, Choice)]
        if len(choices) == len(space) and math.prod([len(axis.values) for axis in choices]) < points:
            raise self._too_few_points()

    @cached_property
    def sequence(self) -> Any:
        """Sampler of the Sobol sequence; a draw has one coordinate in [0, 1) per hyperparameter."""
        from scipy.stats.qmc import Sobol  # slow to import (a second), and a grid search does not need it

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
        """Convert coordinates in the unit cube to a point of the search space."""
        axes = zip(self.space.items(), coordinates, strict=True)
        return tuple((name, axis.from_unit(float(u))) for (name, axis), u in axes)

    def _to_unit(self, point: Point) -> Any:
        """Convert a point of the search space to coordinates in the unit cube."""
        return np.array([self.space[name].to_unit(value) for name, value in point])

    def _draw_new(self, count: int, known: set[Point], centre: Any = 0.5, half: float = 0.5) -> list[Point]:
        """Draw `count` new points from a box, or from the whole space if the box has too few new points.

        Args:
            count: number of points to draw.
            known: points that do not count as new.
            centre: centre of the box, in unit coordinates.
            half: half the width of the box, in unit coordinates.

        Raises:
            ValueError: if the whole space has too few new points.
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
