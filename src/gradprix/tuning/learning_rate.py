"""Learning-rate tuner on a logarithmic grid: a generator that yields requests and receives scores."""

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from gradprix.spaces import Log

STEPS = (1.0, 1.5, 2.2, 3.3, 4.7, 6.8)
"""Six learning rates per decade, evenly spaced on a logarithmic scale and rounded to two digits."""
SPREAD, REFINE, REPLICATED = 6, 4, 3
"""Number of grid points spread over the space, of points tried near the best, and of best points run on more seeds."""

APART = 2
"""Minimum distance, in grid steps, between the points tried on more seeds: neighbours are too similar for the choice
between them to matter, and with three neighbours the noise of one seed would decide which region they are in."""


class Score(NamedTuple):
    """Validation loss and sign-adjusted metric of a tuning run: smaller is better, infinite if it diverged."""

    loss: float
    metric: float


Key = TypeVar("Key", int, Any)
Ask = list[tuple[int, int]]
"""(grid point, index of the tuning seed) of each requested trial."""
Answers = dict[tuple[int, int], Score]


@dataclass(frozen=True)
class GridResult:
    """Result of tuning.

    Args:
        point: the best grid point.
        at_edge: the best point is the smallest or largest one tried, so that the optimum may lie further out.
    """

    point: int
    at_edge: bool


def rate(point: int, offset: float = 0.0) -> float:
    """Return the learning rate of a grid point: 0 is 1, 6 is 10; an offset shifts the grid up, in grid steps."""
    decade, step = divmod(point, len(STEPS))
    base = float(f"{STEPS[step]}e{decade}")
    return base if offset == 0 else float(f"{base * 10 ** (offset / len(STEPS)):.3g}")


def grid_bounds(space: Log) -> tuple[int, int]:
    """Return the lowest and highest grid point within a space, where the search starts; it may extend beyond them."""
    low = math.ceil(len(STEPS) * math.log10(space.low) - 0.1)
    high = math.floor(len(STEPS) * math.log10(space.high) + 0.1)
    if low > high:
        raise ValueError(f"there is no rate of the ladder from {space.low:g} to {space.high:g}: give a wider space.")
    return low, high


def spread(space: Log, default: float, count: int = SPREAD) -> list[int]:
    """Return grid points evenly spaced over the space, including the one nearest to the default learning rate."""
    low, high = grid_bounds(space)
    default_rung = min(max(round(len(STEPS) * math.log10(default)), low), high) if default > 0 else low
    if count == 1:
        return [default_rung]
    chosen = [round(low + (high - low) * i / (count - 1)) for i in range(count)]
    nearest = min(range(count), key=lambda i: abs(chosen[i] - default_rung))
    chosen[nearest] = default_rung
    return list(dict.fromkeys(chosen))


def tune(space: Log, default: float, trials: int) -> Generator[Ask, Answers, GridResult]:
    """Find the best grid point in exactly `trials` trials.

    First spread points over the space; then try two at a time near the best: midway to each neighbour, and after that
    the nearest free point on either side. These steps compare the loss, which is smooth. Finally, if trials remain, run
    three of the best points on more seeds, and select by the mean of the race's metric over all their seeds.

    Args:
        space: initial search range; the search may leave it if the best point is at its edge.
        default: a learning rate to include approximately.
        trials: total number of trials.
    """
    seeds = max(0, (trials - SPREAD - REFINE) // REPLICATED)
    alone = trials - REPLICATED * seeds
    losses: dict[int, float] = {}
    scores: Answers = {}

    def ask(points: list[int]) -> Generator[Ask, Answers, None]:
        answers = yield [(point, 0) for point in points]
        scores.update(answers)
        losses.update({point: answers[point, 0].loss for point in points})

    yield from ask(spread(space, default, min(SPREAD, alone)))
    halving = True
    while len(losses) < alone:
        yield from ask(around(losses, halving)[: alone - len(losses)])
        halving = False
    if not seeds:
        point = ranked(losses)[0]
    else:
        best = finalists(losses)
        scores |= yield [(point, seed) for point in best for seed in range(1, seeds + 1)]
        mean = {point: Score(*np.mean([scores[point, seed] for seed in range(seeds + 1)], axis=0)) for point in best}
        point = min(best, key=lambda point: (mean[point].metric, mean[point].loss, point))
    return GridResult(point, point in (min(losses), max(losses)))


def ranked(losses: Mapping[Key, float]) -> list[Key]:
    """Sort by loss, best first; the smaller learning rate first where losses are equal."""
    return sorted(losses, key=lambda key: (losses[key], key))


def finalists(losses: dict[int, float]) -> list[int]:
    """Return the best grid points that are not neighbours, then, if those are too few, the best of the rest."""
    chosen: list[int] = []
    for point in ranked(losses):
        if all(abs(point - other) >= APART for other in chosen):
            chosen.append(point)
    rest = [point for point in ranked(losses) if point not in chosen]
    return (chosen + rest)[:REPLICATED]


def around(losses: dict[int, float], halving: bool) -> list[int]:
    """Return two untried grid points, one on each side of the best: midway to its neighbours, or adjacent to it.

    At an edge of the tried range there is no neighbour: the outward distance equals the inward one.
    """
    best = ranked(losses)[0]
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
