"""What to try next, of one hyperparameter or several, as a conversation: yields points, receives how they went."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradprix.rules import Axis, Choice, Log

from .learning_rate import REFINE, RESEEDED, SPREAD, Answers, Score, rate, tune

Point = tuple[tuple[str, Any], ...]
"""Values by name, in the order of the space."""
Wanted = list[tuple[Point, int]]
"""(point, which tuning seed) of each trial wanted."""
Scores = dict[tuple[Point, int], Score]
EDGE = 0.03
"""The outermost share of a range: a best value there may lie further out."""
MOST_SEEDS = 3
"""How many more seeds the best points are tried on; trials beyond these look at more points."""


@dataclass(frozen=True)
class Found:
    """What tuning found.

    Args:
        point: the best.
        edges: the names of its values that lie at an end of what was tried.
    """

    point: Point
    edges: tuple[str, ...]


def searched(
    space: Mapping[str, Axis], default: Mapping[str, Any], trials: int, offset: float, luck: int
) -> Generator[Wanted, Scores, Found]:
    """Find the best point in exactly this many trials: the learning rate alone on a ladder, several with Sobol points.

    Args:
        space: the range of each hyperparameter.
        default: a value of each to begin near.
        trials: how many in all.
        offset: shifts the ladder of rates.
        luck: decides the Sobol points.
    """
    if list(space) == ["lr"] and isinstance(space["lr"], Log):
        return _on_the_ladder(space["lr"], default["lr"], trials, offset)
    return _scattered(space, default, trials, luck)


def _on_the_ladder(space: Log, default: float, trials: int, offset: float) -> Generator[Wanted, Scores, Found]:
    def point(rung: int) -> Point:
        return (("lr", rate(rung, offset)),)

    tuner = tune(space, default, trials)
    answers: Answers | None = None
    while True:
        try:
            asked = next(tuner) if answers is None else tuner.send(answers)
        except StopIteration as done:
            return Found(point(done.value.rung), ("lr",) * done.value.at_edge)
        scores = yield [(point(rung), seed) for rung, seed in asked]
        answers = {(rung, seed): scores[point(rung), seed] for rung, seed in asked}


def _scattered(
    space: Mapping[str, Axis], default: Mapping[str, Any], trials: int, luck: int
) -> Generator[Wanted, Scores, Found]:
    """Scrambled Sobol points over the space, the default among them; then two and two round the best; then more seeds.

    Sobol 1967, doi:10.1016/0041-5553(67)90144-9; scrambled as in Owen 1995, doi:10.1007/978-1-4612-2552-2_19.
    """
    seeds = min(MOST_SEEDS, max(0, (trials - SPREAD - REFINE) // RESEEDED))
    alone = trials - RESEEDED * seeds
    draw = _Points(space, luck)
    scores: Scores = {}
    losses: dict[Point, float] = {}

    def ask(points: list[Point]) -> Generator[Wanted, Scores, None]:
        answers = yield [(point, 0) for point in points]
        scores.update(answers)
        losses.update({point: answers[point, 0].loss for point in points})

    first = draw.at(np.array([axis.share(default[name]) for name, axis in space.items()]))
    wide = max(1, alone - REFINE)
    yield from ask([first, *draw.new(wide - 1, {first})])
    half = 0.5 * wide ** (-1 / len(space))  # half of what lies between neighbours
    while len(losses) < alone:
        half /= 2 if len(losses) > wide else 1
        best = min(losses, key=lambda point: losses[point])
        yield from ask(draw.new(min(2, alone - len(losses)), set(losses), draw.shares(best), half))
    by_loss = sorted(losses, key=losses.__getitem__)  # where equal, in the order in which they were tried
    if seeds:
        tried = by_loss[:RESEEDED]
        scores |= yield [(point, seed) for point in tried for seed in range(1, seeds + 1)]
        mean = {p: Score(*np.mean([scores[p, seed] for seed in range(seeds + 1)], axis=0)) for p in tried}
        best = min(tried, key=lambda p: (mean[p].metric, mean[p].loss))
    else:
        best = by_loss[0]
    ends = zip(space.items(), draw.shares(best), strict=True)
    edges = tuple(n for (n, axis), u in ends if not isinstance(axis, Choice) and not EDGE <= u <= 1 - EDGE)
    return Found(best, edges)


class _Points:
    """New points of a space, one after the other."""

    def __init__(self, space: Mapping[str, Axis], luck: int) -> None:
        from scipy.stats.qmc import Sobol  # a second to import, which one learning rate need not wait for

        self.space, self.sobol = space, Sobol(len(space), scramble=True, rng=luck)

    def at(self, shares: Any) -> Point:
        return tuple((name, axis.at(float(u))) for (name, axis), u in zip(self.space.items(), shares, strict=True))

    def shares(self, point: Point) -> Any:
        return np.array([self.space[name].share(value) for name, value in point])

    def new(self, count: int, known: set[Point], centre: Any = 0.5, half: float = 0.5) -> list[Point]:
        """So many points within a box that are none of the known ones.

        Raises:
            ValueError: when there are no more.
        """
        found: list[Point] = []
        for _ in range(100 * count):
            if len(found) == count:
                break
            point = self.at(centre + half * (2 * self.sobol.random(1)[0] - 1))
            if point not in known and point not in found:
                found.append(point)
        if len(found) < count:
            raise ValueError(
                f"the space of {', '.join(self.space)} has fewer different points than there are trials: "
                "give a wider space, or fewer trials."
            )
        return found
