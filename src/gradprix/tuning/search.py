"""Tuner of one or several hyperparameters: a generator that yields points and receives their scores."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradprix.spaces import Axis, Choice, Log

from .learning_rate import REFINE, REPLICATED, SPREAD, Answers, Score, rate, tune

Point = tuple[tuple[str, Any], ...]
"""Values by name, in the order of the space."""
Requests = list[tuple[Point, int]]
"""(point, index of the tuning seed) of each requested trial."""
Scores = dict[tuple[Point, int], Score]
EDGE = 0.03
"""Outermost fraction of a range that counts as its edge: the optimum may lie further out."""
MOST_SEEDS = 3
"""Maximum number of additional seeds for the best points; further trials go to more points."""


@dataclass(frozen=True)
class TuningResult:
    """Result of tuning.

    Args:
        point: the best point.
        edges: names of its hyperparameters that lie at an edge of the tried range.
    """

    point: Point
    edges: tuple[str, ...]


def make_tuner(
    space: Mapping[str, Axis], default: Mapping[str, Any], trials: int, offset: float, rng_seed: int
) -> Generator[Requests, Scores, TuningResult]:
    """Return a tuner: a grid search for the learning rate alone, or Sobol points for several hyperparameters.

    Args:
        space: search range of each hyperparameter.
        default: default value of each, included in the search approximately.
        trials: exact number of trials.
        offset: shift of the learning-rate grid, in grid steps.
        rng_seed: seed of the Sobol sequence.
    """
    if list(space) == ["lr"] and isinstance(space["lr"], Log):
        return _grid_search(space["lr"], default["lr"], trials, offset)
    return _sobol_search(space, default, trials, rng_seed)


def _grid_search(space: Log, default: float, trials: int, offset: float) -> Generator[Requests, Scores, TuningResult]:
    def as_point(grid_point: int) -> Point:
        return (("lr", rate(grid_point, offset)),)

    tuner = tune(space, default, trials)
    answers: Answers | None = None
    while True:
        try:
            asked = next(tuner) if answers is None else tuner.send(answers)
        except StopIteration as done:
            return TuningResult(as_point(done.value.point), ("lr",) * done.value.at_edge)
        scores = yield [(as_point(grid_point), seed) for grid_point, seed in asked]
        answers = {(grid_point, seed): scores[as_point(grid_point), seed] for grid_point, seed in asked}


def _sobol_search(
    space: Mapping[str, Axis], default: Mapping[str, Any], trials: int, rng_seed: int
) -> Generator[Requests, Scores, TuningResult]:
    """Try scrambled Sobol points and the default; then pairs of points near the best; then the best on more seeds.

    Sobol 1967, doi:10.1016/0041-5553(67)90144-9; scrambled as in Owen 1995, doi:10.1007/978-1-4612-2552-2_19.
    """
    seeds = min(MOST_SEEDS, max(0, (trials - SPREAD - REFINE) // REPLICATED))
    alone = trials - REPLICATED * seeds
    draw = _Points(space, rng_seed)
    scores: Scores = {}
    losses: dict[Point, float] = {}

    def ask(points: list[Point]) -> Generator[Requests, Scores, None]:
        answers = yield [(point, 0) for point in points]
        scores.update(answers)
        losses.update({point: answers[point, 0].loss for point in points})

    first = draw.point_at(np.array([axis.to_unit(default[name]) for name, axis in space.items()]))
    wide = max(1, alone - REFINE)
    yield from ask([first, *draw.new(wide - 1, {first})])
    half = 0.5 * wide ** (-1 / len(space))  # half of the distance between neighbours
    while len(losses) < alone:
        half /= 2 if len(losses) > wide else 1
        best = min(losses, key=lambda point: losses[point])
        yield from ask(draw.new(min(2, alone - len(losses)), set(losses), draw.shares(best), half))
    by_loss = sorted(losses, key=losses.__getitem__)  # ties stay in the order of the trials
    if seeds:
        tried = by_loss[:REPLICATED]
        scores |= yield [(point, seed) for point in tried for seed in range(1, seeds + 1)]
        mean = {p: Score(*np.mean([scores[p, seed] for seed in range(seeds + 1)], axis=0)) for p in tried}
        best = min(tried, key=lambda p: (mean[p].metric, mean[p].loss))
    else:
        best = by_loss[0]
    ends = zip(space.items(), draw.shares(best), strict=True)
    edges = tuple(n for (n, axis), u in ends if not isinstance(axis, Choice) and not EDGE <= u <= 1 - EDGE)
    return TuningResult(best, edges)


class _Points:
    """Generator of new points of a space."""

    def __init__(self, space: Mapping[str, Axis], rng_seed: int) -> None:
        from scipy.stats.qmc import Sobol  # takes a second to import, and a grid search does not need it

        self.space, self.sobol = space, Sobol(len(space), scramble=True, rng=rng_seed)

    def point_at(self, shares: Any) -> Point:
        axes = zip(self.space.items(), shares, strict=True)
        return tuple((name, axis.from_unit(float(u))) for (name, axis), u in axes)

    def shares(self, point: Point) -> Any:
        return np.array([self.space[name].to_unit(value) for name, value in point])

    def new(self, count: int, known: set[Point], centre: Any = 0.5, half: float = 0.5) -> list[Point]:
        """Return `count` new points within a box.

        Raises:
            ValueError: if the box has too few new points.
        """
        points: list[Point] = []
        for _ in range(100 * count):
            if len(points) == count:
                break
            point = self.point_at(centre + half * (2 * self.sobol.random(1)[0] - 1))
            if point not in known and point not in points:
                points.append(point)
        if len(points) < count:
            raise ValueError(
                f"the space of {', '.join(self.space)} has fewer different points than there are trials: "
                "give a wider space, or fewer trials."
            )
        return points
