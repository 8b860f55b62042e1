"""Base class of tuners, with an ask/tell interface."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SPREAD, REFINE, REPLICATED = 6, 4, 3
"""Number of points spread over the space, of points tried near the best one, and of finalists: the best points, which
run on more seeds."""

Floats = NDArray[np.float64]
Point = tuple[tuple[str, Any], ...]
"""Point of a search space: pairs of (hyperparameter name, value), in the order of the space."""


class PhaseKind(StrEnum):
    """Purpose of the trials in a phase of tuning.

    `SPREAD` trials cover the search space, `NEAR_BEST` trials refine around the best point so far, and `REPLICATION`
    trials repeat the best points on more seeds.
    """

    SPREAD = "spread"
    NEAR_BEST = "near_best"
    REPLICATION = "replication"


class Phase(NamedTuple):
    """Phase of tuning: trials that a tuner requests at once. `kind` is their purpose, `trials` their number."""

    kind: PhaseKind
    trials: int


class Request(NamedTuple):
    """Trial that a tuner requests: a point of the search space, and the index of the tuning seed to run it with."""

    point: Point
    seed: int


class Score(NamedTuple):
    """Score of a tuning run.

    Both values are infinite if the run diverged.

    Args:
        loss: validation loss.
        metric: validation metric, with its sign chosen so that smaller is better.
    """

    loss: float
    metric: float


@dataclass(frozen=True)
class TuningResult:
    """Result of tuning.

    Args:
        point: the tuned hyperparameters.
        edges: names of the hyperparameters whose tuned value lies at an edge of the tried range. Their optimum may lie
            outside of it.
        choices: point that each independent search chose, which `point` combines. After a single search, only `point`.
    """

    point: Point
    edges: tuple[str, ...]
    choices: tuple[Point, ...]


class Tuner(ABC):
    """Base class of algorithms that choose hyperparameters.

    A tuner requests trials in phases. The number of phases and of their trials is known beforehand, because it does not
    depend on any score. Use a tuner like this:

        while not tuner.is_done:
            tuner.tell([train(point, seed) for point, seed in tuner.ask()])
        tuner.result

    Attributes:
        phases: all phases, finished or not.
        finished_phases: number of phases whose scores were recorded.
    """

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.phases = list(phases)
        self.finished_phases = 0

    @property
    def phase(self) -> Phase:
        """The current phase: the first one that is not finished."""
        return self.phases[self.finished_phases]

    @property
    def is_done(self) -> bool:
        """True if all phases are finished."""
        return self.finished_phases == len(self.phases)

    @abstractmethod
    def ask(self) -> list[Request]:
        """Return the trials to run in the current phase, or an empty list if tuning is done."""

    @abstractmethod
    def tell(self, scores: Sequence[Score]) -> None:
        """Record the scores of the current phase, in the order of `ask`, and proceed to the next phase."""

    @property
    @abstractmethod
    def result(self) -> TuningResult:
        """The hyperparameters chosen from the scores so far."""


class Search(Tuner):
    """Base class of tuners that search one space from coarse to fine.

    The first phase spreads points over the space. Each of the next phases tries one or two points near the best one.
    These phases use one seed and compare validation losses, which are smoother than the metric. If trials remain, the
    last phase runs the best points, the finalists, on more seeds, and the scores on all seeds decide between them.

    Args:
        spread: number of points in the first phase.
        points: total number of points to try.
        replicates: number of additional seeds for each finalist.

    Attributes:
        pending: requests of the current phase; empty before `ask` is called.
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
        """Return the trials to run in the current phase, or an empty list if tuning is done.

        Calling it again before `tell` returns the same requests.
        """
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
        """Record the scores of the current phase, in the order of `ask`; the next phase depends on them."""
        self.scores.update(zip(self.ask(), scores, strict=True))
        self.pending = []
        self.finished_phases += 1

    @property
    def losses(self) -> dict[Point, float]:
        """Validation loss of each tried point on the first seed."""
        return {point: score.loss for (point, seed), score in self.scores.items() if seed == 0}

    @property
    def result(self) -> TuningResult:
        """The hyperparameters chosen from the scores so far.

        After a replication phase they are chosen from the finalists' scores on all seeds, and until then as the point
        with the smallest loss on the first seed.
        """
        if self.replicates and self.is_done:
            finalists, seeds = self._finalists(), range(self.replicates + 1)
            point = self._choose({p: np.array([self.scores[Request(p, seed)] for seed in seeds]) for p in finalists})
        else:
            point = self._rank(self.losses)[0]
        return TuningResult(point, self._edges(point), (point,))

    def _choose(self, scores: Mapping[Point, Floats]) -> Point:
        """Return the finalist with the best mean metric over seeds; ties go to the smaller mean loss.

        Args:
            scores: losses and metrics of each finalist, of shape `[seeds, 2]`; smaller is better.
        """
        means = {point: each.mean(0) for point, each in scores.items()}
        return self._rank({point: (metric, loss) for point, (loss, metric) in means.items()})[0]

    def _rank(self, values: Mapping[Point, Any]) -> list[Point]:
        """Sort points by ascending value, so that the best is first; points with equal values keep their order."""
        return sorted(values, key=values.__getitem__)

    @abstractmethod
    def _spread_points(self) -> list[Point]:
        """Return the points of the first phase, spread over the search space."""

    @abstractmethod
    def _points_near_best(self, count: int) -> list[Point]:
        """Return `count` untried points near the best point so far."""

    @abstractmethod
    def _finalists(self) -> list[Point]:
        """Return the points to run on more seeds: the best ones by their loss on the first seed."""

    @abstractmethod
    def _edges(self, point: Point) -> tuple[str, ...]:
        """Return the names of the hyperparameters whose value in `point` lies at an edge of the tried range."""


def split_trials(trials: int, max_replicates: int | None = None) -> tuple[int, int]:
    """Split a number of trials between points to try and additional seeds for the finalists.

    Args:
        trials: total number of trials.
        max_replicates: maximum number of additional seeds; None means no limit.

    Returns:
        The number of points, and the number of additional seeds for each finalist.
    """
    replicates = max(0, (trials - SPREAD - REFINE) // REPLICATED)
    if max_replicates is not None:
        replicates = min(max_replicates, replicates)
    return trials - REPLICATED * replicates, replicates
