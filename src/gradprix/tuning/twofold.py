"""Tuner that searches twice, to know how much its choice depends on the seeds."""

import math
from collections.abc import Sequence
from itertools import zip_longest
from statistics import fmean

from .learning_rate_grid import round_learning_rate
from .tuner import Phase, Request, Score, Search, Tuner, TuningResult


class TwofoldTuner(Tuner):
    """Two independent searches for a learning rate, on separate seeds.

    The result is the geometric mean of their choices, which varies less than the choice of one search with all trials.
    Their disagreement tells by how much the choice would vary if the whole race were repeated.

    Args:
        first: one search.
        second: another search of the same space.
    """

    def __init__(self, first: Search, second: Search) -> None:
        self.searches = (first, second)
        self.second_seed = first.replicates + 1
        pairs = zip_longest(first.phases, second.phases)
        super().__init__([_merge([phase for phase in pair if phase]) for pair in pairs])

    def ask(self) -> list[Request]:
        """Return the requests of both searches; the seeds of the second follow those of the first."""
        first, second = (search.ask() for search in self.searches)
        return [*first, *(Request(point, self.second_seed + seed) for point, seed in second)]

    def tell(self, scores: Sequence[Score]) -> None:
        """Give each search the scores of its requests."""
        start = 0
        for search in self.searches:
            if not search.is_done:
                count = len(search.ask())
                search.tell(scores[start : start + count])
                start += count
        self.finished_phases += 1

    @property
    def result(self) -> TuningResult:
        """The geometric mean of the choices, without a search whose trials all diverged."""
        results = [search.result for search in self.searches]
        trained = [any(map(math.isfinite, search.losses.values())) for search in self.searches]
        rates = [
            dict(result.point)["lr"] for result, each in zip(results, trained, strict=True) if each or not any(trained)
        ]
        mean = round_learning_rate(10 ** fmean(map(math.log10, rates)))
        edges = tuple(dict.fromkeys(edge for result in results for edge in result.edges))
        return TuningResult((("lr", mean),), edges, tuple(result.point for result in results))


def _merge(phases: Sequence[Phase]) -> Phase:
    return Phase(phases[0].kind, sum(phase.trials for phase in phases))
