"""Record of a finished race: the source of everything that is displayed, exported and saved.

Where the name of a field in JSON differs from the attribute, it is given by `name=`, because saved races and the output
of `--json` keep their keys.
"""

import msgspec
from msgspec import field

from gradprix.stats.alpha_spending import InterimAnalysis
from gradprix.stats.budget_sensitivity import DistanceChange
from gradprix.stats.recommendation import RecommendationReason
from gradprix.stats.verdict import Pair

from .best import Best
from .diagnosis_record import Diagnosis
from .plan_description import PlanDescription, Value
from .run_records import Artifacts, Curves, FailedRun, Rerun, TuningRun

SCHEMA_VERSION = 3
"""Version of the record's JSON form. Version 2 had no regret bounds, and a limit of the loss instead of the tolerance.
Version 1 had sentences instead of codes, and no version number."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """Budget of each entry.

    Args:
        trials: number of tuning trials.
        seeds: number of final seeds.
        examples: number of training examples per run; None for a training loop.
    """

    trials: int
    seeds: int
    examples: int | None


class TuningSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Summary of an entry's tuning.

    Args:
        trials: number of tuning runs.
        diverged: number of diverged tuning runs.
        at_edge: True if `edges` is not empty.
        edges: names of the hyperparameters whose tuned value is at an edge of the tried range.
    """

    trials: int
    diverged: int
    at_edge: bool
    edges: tuple[str, ...]


class FinalRuns(msgspec.Struct, frozen=True, kw_only=True):
    """Final runs of an entry.

    Args:
        metric: name of the metric.
        values: metric of each run, in the order of the seeds.
        mean: mean of the metric over seeds.
        ci95: 95 % confidence interval of the mean, not adjusted for comparisons.
        diverged: number of diverged runs.
        divergence_steps: step at which each run diverged; None if it did not diverge.
    """

    metric: str
    values: tuple[float, ...]
    mean: float
    ci95: tuple[float, float]
    diverged: int
    divergence_steps: tuple[int | None, ...] = field(name="lost")

    @property
    def all_diverged(self) -> bool:
        """True if every run diverged, so that no tuned value is better than another."""
        return self.diverged == len(self.values)


class EntryResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one entry.

    Args:
        losses: test loss of each final run; None if the run diverged.
        is_leader: True if the entry is one of the leaders; see `RaceVerdict`.
        bound: upper bound of the entry's regret; None in records of earlier versions.
        tolerance: learning-rate tolerance: smallest and largest learning rate within a margin of the best; None if
            unknown.
        tolerance_decades: width of the tolerance, in decades.
        memory: number of optimizer-state elements per weight; None if unknown.
        updates: number of optimizer steps per run; None for a training loop.
        gradients: number of times that a final run computed the gradient of a batch, on average. It is more than
            `updates` with a closure or SAM; None for a training loop, and in records of earlier versions.
        code: constructor call of the optimizer, as source code.
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
    gradients: float | None = None
    code: str

    @property
    def edges(self) -> tuple[str, ...]:
        """Hyperparameters whose best value is at an edge of the search range; empty if every final run diverged."""
        return () if self.final.all_diverged else self.tuning.edges


class RaceVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Verdict of a race.

    Args:
        leaders: names of the entries that no entry wins against and of which no final run diverged. With a baseline,
            see `gradprix.stats.verdict.Verdict`.
        recommended: name of the recommended entry.
        reason: criterion that decided for the recommended entry.
        interim_analyses: interim analyses that were performed, as (number of seeds, level).
        pairs: pairwise comparisons.
        seeds: number of final seeds of each entry. This field and those below are None in records of earlier versions.
        bound: upper bound of the recommended entry's regret: the largest plausible loss by not using the best of the
            other entries.
        level: confidence level of `bound`.
        margin: the smallest difference that matters, in the metric's units.
        tuning_deviation: standard deviation of an entry's mean due to tuning. The bound and the comparisons allow for
            it.
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
    """Training cost of a race.

    Args:
        trials: number of training runs.
        examples: number of training examples in all runs together; None for a training loop.
        seconds: total training time.
        step_seconds: duration of a step of each entry in a plain training loop; None if unknown.
    """

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


LARGEST_TIME_RATIO = 1.25
"""Ratio of the times of two entries' runs above which they are also compared in equal time."""


class BudgetSensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of the tuned optimizers with a share of the examples.

    Args:
        share: share of the examples.
        seeds: number of runs of each entry.
        values: metric of each run.
        reference: name of the entry that the others are compared with, the recommended one if it has such runs.
        changes: distance of each entry from the reference, with these examples and with all.
    """

    share: float
    seeds: int
    values: dict[str, tuple[float, ...]]
    reference: str
    changes: dict[str, DistanceChange]


class EqualTime(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of the tuned optimizers that take as long as those of the fastest leader, or less.

    Args:
        seeds: number of runs of each entry.
        ratios: time of an entry's full run, as a multiple of the fastest leader's.
        shares: share of the examples in an entry's runs here: 1, or less if the ratio is above `LARGEST_TIME_RATIO`.
        values: metric of each run.
        bounds: upper bound of the regret of each entry (95 %).
        recommended: name of the entry to use in this time.
    """

    seeds: int
    ratios: dict[str, float]
    shares: dict[str, float]
    values: dict[str, tuple[float, ...]]
    bounds: dict[str, float]
    recommended: str

    @property
    def slow(self) -> list[str]:
        """Names of the entries whose runs here have fewer examples."""
        return [name for name, share in self.shares.items() if share < 1]


class RaceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Complete record of a race.

    Args:
        best: recommended optimizer with its tuned hyperparameters.
        key: hash of the plan.
        tuning_runs: tuning runs of each entry, in the order in which the tuner requested them.
        failed: training runs that raised an error.
        initial_loss: median loss before training; None if unknown.
        artifacts: additional results of the final runs; see `Artifacts`.
        parts: for each entry, the metric on each part of an official test set, `[seeds][parts]`; None if there is no
            official test set.
        efficiency: scores at smaller budgets.
        curves: learning curves of each entry's final runs.
        versions: versions of the packages that were used.
        reruns: final runs that were repeated in a new process.
        budget_sensitivity: runs with a quarter of the examples; None for training loops and runs of a few steps.
        equal_time: comparison in equal time; None if the runs of all entries take about as long, or times are unknown.
        diagnosis: diagnosis of the final runs; None if they were not diagnosed.
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
    budget_sensitivity: BudgetSensitivity | None = None
    equal_time: EqualTime | None = None
    diagnosis: Diagnosis | None = field(name="why", default=None)

    @property
    def ranking(self) -> list[EntryResult]:
        """Results of the entries, best mean first."""
        sign = -1 if self.plan.metric.higher_is_better else 1
        return sorted(self.entries, key=lambda entry: sign * entry.final.mean)

    @property
    def means(self) -> dict[str, float]:
        """Mean of the metric over the final seeds, by name of the entry."""
        return {entry.name: entry.final.mean for entry in self.entries}

    def entry(self, name: str) -> EntryResult:
        """Return the result of the entry with this name."""
        return next(entry for entry in self.entries if entry.name == name)

    def pair(self, one: str, other: str) -> Pair:
        """Return the comparison of two entries, given in any order."""
        return next(pair for pair in self.verdict.pairs if {pair.a, pair.b} == {one, other})
