"""Base class of tuners, with an ask/tell interface."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SPREAD, REFINE, REPLICATED = 6, 4, 3
"""Number of points spread over the space, of points tried near the best, and of best points run on more seeds."""

Floats = NDArray[np.float64]
Point = tuple[tuple[str, Any], ...]
"""Hyperparameter values by name, in the order of the space."""


class PhaseKind(StrEnum):
    """Kind of trials that a tuner requests in a phase."""

    SPREAD = "spread"
    NEAR_BEST = "near_best"
    REPLICATION = "replication"


class Phase(NamedTuple):
    """Phase of tuning: the kind of its trials, and their number."""

    kind: PhaseKind
    trials: int


class Request(NamedTuple):
    """Requested trial: a point of the search space, and the index of the tuning seed to run it on."""

    point: Point
    seed: int


class Score(NamedTuple):
    """Validation loss and sign-adjusted metric of a tuning run: smaller is better, infinite if it diverged."""

    loss: float
    metric: float


@dataclass(frozen=True)
class TuningResult:
    """Result of tuning.

    Args:
        point: the best point.
        edges: names of its hyperparameters that lie at an edge of the tried range, so that the optimum may lie further
            out.
        choices: the results of independent searches that the point combines; the point alone if there was one search.
    """

    point: Point
    edges: tuple[str, ...]
    choices: tuple[Point, ...]


class Tuner(ABC):
    """Choice of hyperparameters in phases, which are known beforehand because their sizes do not depend on any score.

        while not tuner.is_done:
            tuner.tell([train(point, seed) for point, seed in tuner.ask()])
        tuner.result

    Attributes:
        phases: all phases.
        finished_phases: number of finished phases.
    """

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.phases = list(phases)
        self.finished_phases = 0

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self.phases[self.finished_phases]

    @property
    def is_done(self) -> bool:
        """True after the last phase."""
        return self.finished_phases == len(self.phases)

    @abstractmethod
    def ask(self) -> list[Request]:
        """Return the requests of the current phase; an empty list when tuning is done."""

    @abstractmethod
    def tell(self, scores: Sequence[Score]) -> None:
        """Record the scores of the current phase, in the order of its requests, and end the phase."""

    @property
    @abstractmethod
    def result(self) -> TuningResult:
        """The best point so far."""


class Search(Tuner):
    """Search of a space.

    The first phase spreads points over the space; the next ones try up to two points each near the best. These phases
    use one seed and compare the validation loss, which is smooth. If trials remain, the last phase runs the best points
    on more seeds, and their scores on all seeds decide.

    Args:
        spread: number of points of the first phase.
        points: total number of points.
        replicates: number of additional seeds of the best points.

    Attributes:
        pending: requests of the current phase, empty before `ask`.
        scores: score of each finished trial.
    """

    def __init__(self, spread: int, points: int, replicates: int) -> None:
        pairs, rest = divmod(points - spread, 2)
        phases = [Phase(PhaseKind.SPREAD, spread)]
        phases += [Phase(PhaseKind.NEAR_BEST, trials) for trials in [2] * pairs + [1] * rest]
        if replicates:
            phases.append(Phase(PhaseKind.REPLICATION, REPLICATED * replicates))
        super().__init__(phases)
        self.replicates = replicates
        self.pending: list[Request] = []
        self.scores: dict[Request, Score] = {}

    def ask(self) -> list[Request]:
        """Return the requests of the current phase: points of the search on its seeds."""
        if not self.pending and not self.is_done:
            kind, trials = self.phase
            if kind is PhaseKind.REPLICATION:
                seeds = range(1, self.replicates + 1)
                self.pending = [Request(point, seed) for point in self._finalists() for seed in seeds]
            else:
                spread = kind is PhaseKind.SPREAD
                points = self._spread_points() if spread else self._points_near_best(trials)
                self.pending = [Request(point, 0) for point in points]
        return self.pending

    def tell(self, scores: Sequence[Score]) -> None:
        """Record the scores of the current phase, which decide on the points of the next one."""
        self.scores.update(zip(self.ask(), scores, strict=True))
        self.pending = []
        self.finished_phases += 1

    @property
    def losses(self) -> dict[Point, float]:
        """Validation loss of each point on the first seed."""
        return {point: score.loss for (point, seed), score in self.scores.items() if seed == 0}

    @property
    def result(self) -> TuningResult:
        """The best point so far: from the finalists if they ran on several seeds, else by the loss."""
        if self.replicates and self.is_done:
            finalists, seeds = self._finalists(), range(self.replicates + 1)
            point = self._choose({p: np.array([self.scores[Request(p, seed)] for seed in seeds]) for p in finalists})
        else:
            point = self._rank(self.losses)[0]
        return TuningResult(point, self._edges(point), (point,))

    def _choose(self, scores: Mapping[Point, Floats]) -> Point:
        """Return the finalist with the best mean metric; the better loss decides between equal ones.

        Args:
            scores: losses and metrics of each finalist, `[seeds, 2]`.
        """
        means = {point: each.mean(0) for point, each in scores.items()}
        return self._rank({point: (metric, loss) for point, (loss, metric) in means.items()})[0]

    def _rank(self, values: Mapping[Point, Any]) -> list[Point]:
        """Sort points by their values, best first; equal ones stay in their order."""
        return sorted(values, key=values.__getitem__)

    @abstractmethod
    def _spread_points(self) -> list[Point]:
        """Return the points of the first phase."""

    @abstractmethod
    def _points_near_best(self, count: int) -> list[Point]:
        """Return new points near the best one so far."""

    @abstractmethod
    def _finalists(self) -> list[Point]:
        """Return the best points by the loss on the first seed, which run on more seeds."""

    @abstractmethod
    def _edges(self, point: Point) -> tuple[str, ...]:
        """Return the names of a point's hyperparameters that lie at an edge of the tried range."""


def split_trials(trials: int, max_replicates: int | None = None) -> tuple[int, int]:
    """Split a number of trials into points, and additional seeds for the best points."""
    replicates = max(0, (trials - SPREAD - REFINE) // REPLICATED)
    if max_replicates is not None:
        replicates = min(max_replicates, replicates)
    return trials - REPLICATED * replicates, replicates
