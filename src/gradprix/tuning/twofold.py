"""Tuner that runs two independent searches, to measure how much its choice depends on the seeds."""

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from scipy.special import softmax

from .learning_rate_grid import round_learning_rate
from .response_curve import ResponseCurve, TunedScore, noise_deviation
from .tuner import Floats, Phase, Request, Score, Search, Tuner, TuningResult


class TwofoldTuner(Tuner):
    """Tuner that combines two independent searches for a learning rate, on separate seeds.

    The mean of the two chosen learning rates varies less than the choice of a single search with the same number of
    trials. Their difference shows how much the choice would vary if the whole race were repeated.

    Args:
        first: first search.
        second: second search, of the same space.
    """

    def __init__(self, first: Search, second: Search) -> None:
        self.searches = (first, second)
        self.second_seed = first.replicates + 1
        pairs = zip_longest(first.phases, second.phases)
        super().__init__([_merge([phase for phase in pair if phase]) for pair in pairs])

    def ask(self) -> list[Request]:
        """Return the requests of both searches. The second search uses the seeds after those of the first."""
        first, second = (search.ask() for search in self.searches)
        return [*first, *(Request(point, self.second_seed + seed) for point, seed in second)]

    def tell(self, scores: Sequence[Score]) -> None:
        """Pass to each search the scores of its own requests, and proceed to the next phase."""
        start = 0
        for search in self.searches:
            if not search.is_done:
                count = len(search.ask())
                search.tell(scores[start : start + count])
                start += count
        self.finished_phases += 1

    @property
    def result(self) -> TuningResult:
        """The weighted geometric mean of the two chosen learning rates.

        The weights depend on the values of the response curve, fitted to the trials of both searches.
        """
        results = [search.result for search in self.searches]
        rates = [dict(result.point)["lr"] for result in results]
        mean = round_learning_rate(10 ** float(self._weights(rates) @ np.log10(rates)))
        edges = tuple(dict.fromkeys(edge for result in results for edge in result.edges))
        return TuningResult((("lr", mean),), edges, tuple(result.point for result in results))

    def _weights(self, rates: Sequence[float]) -> Floats:
        """Return the weights of the two chosen learning rates, which sum to 1.

        They are the softmax of the negative response curve, in units of the noise of a single run: nearly equal unless
        one learning rate is worse by more than this noise. This discounts a search whose first seed trains badly at
        every learning rate, which makes its choice arbitrary.
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
    """Return the phase in which searches run the given phases at the same time."""
    return Phase(phases[0].kind, sum(phase.trials for phase in phases))
