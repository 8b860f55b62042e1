"""Tuner that searches twice, to know how much its choice depends on the seeds."""

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from scipy.special import softmax

from .learning_rate_grid import round_learning_rate
from .response_curve import ResponseCurve, TunedScore, noise_deviation
from .tuner import Floats, Phase, Request, Score, Search, Tuner, TuningResult


class TwofoldTuner(Tuner):
    """Two independent searches for a learning rate, on separate seeds.

    The mean of their choices varies less than the choice of one search with all trials.
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
        """The geometric mean of the choices, weighted by how good both are on the response curve of all trials."""
        results = [search.result for search in self.searches]
        rates = [dict(result.point)["lr"] for result in results]
        mean = round_learning_rate(10 ** float(self._weights(rates) @ np.log10(rates)))
        edges = tuple(dict.fromkeys(edge for result in results for edge in result.edges))
        return TuningResult((("lr", mean),), edges, tuple(result.point for result in results))

    def _weights(self, rates: Sequence[float]) -> Floats:
        """Return the weights of two learning rates: equal, unless one is worse by more than the noise of a run.

        If the first seed of a search trains badly at every learning rate, the result of that search is arbitrary.
        """
        scores = [
            TunedScore(dict(point)["lr"], number * self.second_seed + seed, score.metric)
            for number, search in enumerate(self.searches)
            for (point, seed), score in search.scores.items()
        ]
        noise = noise_deviation([scores])
        curve = ResponseCurve.fit(scores, noise, margin=0.0) if noise else None
        if noise is None or curve is None:
            return np.array([0.5, 0.5])
        return np.asarray(softmax([-curve(rate) / noise for rate in rates]))


def _merge(phases: Sequence[Phase]) -> Phase:
    return Phase(phases[0].kind, sum(phase.trials for phase in phases))
