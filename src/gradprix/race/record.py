"""Record of a finished race: the source of everything that is displayed, exported and saved.

Where a field's name in JSON differs from the attribute, `name=` gives it: saved races and `--json` keep their keys.
"""

import msgspec
from msgspec import field

from gradprix.stats.alpha_spending import InterimAnalysis
from gradprix.stats.recommendation import RecommendationReason
from gradprix.stats.verdict import Pair

from .best import Best
from .diagnosis_record import Diagnosis
from .plan_description import PlanDescription, Value
from .run_records import Artifacts, Curves, FailedRun, Rerun, TuningRun

SCHEMA_VERSION = 3
"""Version of the record's JSON form. Version 2 had no regret bounds and a limit of the loss instead of a tolerance;
version 1 had sentences in place of codes, and no version number."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """Tuning trials and final seeds per entry, and training examples per run (None for a training loop)."""

    trials: int
    seeds: int
    examples: int | None


class TuningSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Number of tuning runs of an entry, and the hyperparameters whose best value is at the edge of its range."""

    trials: int
    diverged: int
    at_edge: bool
    edges: tuple[str, ...]


class FinalRuns(msgspec.Struct, frozen=True, kw_only=True):
    """Final runs of an entry, in the order of the seeds, with the 95 % interval of the mean over seeds."""

    metric: str
    values: tuple[float, ...]
    mean: float
    ci95: tuple[float, float]
    diverged: int
    divergence_steps: tuple[int | None, ...] = field(name="lost")


class EntryResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one entry.

    Args:
        losses: test loss of each final run; None if the run diverged.
        is_leader: no entry wins against it.
        bound: upper bound of the entry's regret; None in earlier records.
        tolerance: smallest and largest learning rate within a margin of the best; None if unknown.
        tolerance_decades: width of the tolerance, in decades.
        memory: state elements per weight; None if unknown.
        updates: steps per run; None for a training loop.
        code: the constructor call as source code.
    """

    name: str
    optimizer: str
    batch_size: int
    tuned: dict[str, Value]
    tuning: TuningSummary
    final: FinalRuns
    losses: tuple[float | None, ...]
    is_leader: bool = field(name="leads")
    bound: float | None = None
    tolerance: tuple[float, float] | None = None
    tolerance_decades: float = field(name="window")
    memory: int | None
    updates: int | None
    code: str


class RaceVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Verdict of a race.

    Args:
        leaders: entries that no entry wins against and of which no final run diverged.
        recommended: the recommended entry.
        reason: what decided for it.
        interim_analyses: interim analyses as (seeds, level).
        pairs: pairwise comparisons.
        seeds: number of final seeds of each entry; None in earlier records, as what follows.
        bound: upper bound of the recommended entry's regret: what could be lost against the best of the others.
        level: probability over repetitions of the race that the regret is at most the bound.
        margin: the smallest difference that matters, in the metric's units.
        tuning_deviation: standard deviation of an entry's mean from tuning, which bound and comparisons allow for.
    """

    leaders: tuple[str, ...] = field(name="best")
    recommended: str = field(name="take")
    reason: RecommendationReason
    interim_analyses: tuple[InterimAnalysis, ...] = field(name="looks")
    pairs: tuple[Pair, ...]
    seeds: int | None = None
    bound: float | None = None
    level: float | None = None
    margin: float | None = None
    tuning_deviation: float | None = None


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Training runs, their examples and seconds, and the seconds of a step of each entry without stacking."""

    trials: int
    examples: int | None
    seconds: float
    step_seconds: dict[str, float | None]


class Efficiency(msgspec.Struct, frozen=True, kw_only=True):
    """Scores of each entry at smaller budgets; see `measure_efficiency`."""

    expected: dict[str, tuple[float, ...]]
    probability_best: dict[str, tuple[float, ...]] = field(name="chance")
    default: dict[str, float | None]
    tuned: dict[str, float]
    target: float
    examples: dict[str, tuple[float | None, ...]]


class RaceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Complete record of a race.

    Args:
        best: the recommended optimizer.
        key: hash of the plan.
        tuning_runs: tuning runs of each entry, in the order of the tuners' requests.
        initial_loss: median loss before training; None if unknown.
        parts: metric on parts of an official test set, for each entry `[seeds][parts]`; None if there is none.
        reruns: final runs that were repeated in a new process.
        diagnosis: diagnosis of the final runs, if the race was explained.
    """

    schema: int = SCHEMA_VERSION
    task: str
    about: str
    budget: Budget
    entries: tuple[EntryResult, ...]
    verdict: RaceVerdict
    cost: Cost
    best: Best
    key: str
    plan: PlanDescription
    tuning_runs: dict[str, tuple[TuningRun, ...]] = field(name="tried")
    failed: tuple[FailedRun, ...]
    initial_loss: float | None = field(name="start")
    artifacts: Artifacts = field(name="after")
    parts: dict[str, tuple[tuple[float, ...], ...]] | None
    efficiency: Efficiency = field(name="less")
    curves: dict[str, Curves]
    versions: dict[str, str]
    reruns: tuple[Rerun, ...] = ()
    diagnosis: Diagnosis | None = field(name="why", default=None)

    @property
    def ranking(self) -> list[EntryResult]:
        """Entries, best mean first."""
        sign = -1 if self.plan.metric.higher_is_better else 1
        return sorted(self.entries, key=lambda entry: sign * entry.final.mean)

    @property
    def means(self) -> dict[str, float]:
        """Mean of each entry over the final seeds."""
        return {entry.name: entry.final.mean for entry in self.entries}

    def entry(self, name: str) -> EntryResult:
        """Return the entry with a name."""
        return next(entry for entry in self.entries if entry.name == name)

    def pair(self, one: str, other: str) -> Pair:
        """Return the comparison of two entries, in whichever order it is recorded."""
        return next(pair for pair in self.verdict.pairs if {pair.a, pair.b} == {one, other})
