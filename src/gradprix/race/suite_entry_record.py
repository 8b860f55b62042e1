"""Record of a comparison of one optimizer with the published suite. It contains only numbers and codes."""

import msgspec

from gradprix.stats.verdict import Pair, PairVerdict

from .best import Best
from .control import Control
from .plan_description import MetricDescription, PlanDescription, Value
from .record import FinalRuns
from .run_records import FailedRun, Rerun
from .suite_record import Regret
from .suite_selections import summarize_regrets


class TaskComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Comparison of one optimizer with the published suite on a task.

    Args:
        name: name of the optimizer among the published ones.
        best: the optimizer with its tuned hyperparameters.
        tuned: values of the tuned hyperparameters.
        edges: names of the hyperparameters whose tuned value is at an edge of the tried range.
        tolerance: smallest and largest learning rate within a margin of the best; None if unknown.
        final: its final runs.
        margin: the smallest difference that matters, in the metric's units.
        means: mean of each entry.
        bounds: upper bound of each entry's regret, at a level of 95 % with all interim analyses of the published race.
        pairs: comparisons of the optimizer with each published entry.
        leaders: leaders of the published race.
        recommended: entry that the published race recommends.
        tuning_deviation: standard deviation of the optimizer's mean due to tuning.
        control: repeated runs of published entries.
        runs: number of training runs.
        seconds: their training time.
        published_runs: number of training runs of the published race.
        published_seconds: their training time, on another machine.
    """

    task: str
    about: str
    name: str
    best: Best
    tuned: dict[str, Value]
    edges: tuple[str, ...]
    tolerance: tuple[float, float] | None
    final: FinalRuns
    margin: float
    means: dict[str, float]
    bounds: dict[str, float]
    pairs: tuple[Pair, ...]
    leaders: tuple[str, ...]
    recommended: str
    tuning_deviation: float
    control: Control
    runs: int
    seconds: float
    published_runs: int
    published_seconds: float
    failed: tuple[FailedRun, ...]
    reruns: tuple[Rerun, ...]
    plan: PlanDescription
    versions: dict[str, str]

    @property
    def metric(self) -> MetricDescription:
        """Metric of the task."""
        return self.plan.metric

    @property
    def bound(self) -> float:
        """Upper bound of the optimizer's regret."""
        return self.bounds[self.name]

    @property
    def ranking(self) -> list[str]:
        """Names of all entries, best mean first."""
        return sorted(self.means, key=self.means.__getitem__, reverse=self.metric.higher_is_better)

    @property
    def rank(self) -> int:
        """Rank of the optimizer by its mean, from 1."""
        return 1 + self.ranking.index(self.name)

    @property
    def regrets(self) -> dict[str, float]:
        """Difference of each entry's mean from the best mean, in margins."""
        best = self.means[self.ranking[0]]
        return {name: abs(best - mean) / self.margin for name, mean in self.means.items()}

    def pair(self, other: str) -> Pair:
        """Return the comparison with a published entry."""
        return next(pair for pair in self.pairs if other in (pair.a, pair.b))

    def entries_with(self, verdict: PairVerdict, ahead: bool = True) -> list[str]:
        """Return the published entries with a verdict, best first.

        Args:
            verdict: verdict of the comparison.
            ahead: True for those with a worse mean than the optimizer, False for those with a better mean.
        """
        names = {pair.b if pair.a == self.name else pair.a: pair for pair in self.pairs}
        return [
            other
            for other in self.ranking
            if other in names and names[other].verdict is verdict and (names[other].a == self.name) == ahead
        ]


class SuiteComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Comparison of one optimizer with the published suite on several tasks.

    Args:
        entry: name of the optimizer.
        tasks: comparison on each task, by its name.
    """

    entry: str
    tasks: dict[str, TaskComparison]

    @property
    def regrets(self) -> dict[str, Regret]:
        """Regret of each entry that ran on all tasks, in margins, the smallest mean first.

        The optimizer is called by its own name, also where a published one has the same.
        """
        rows: dict[str, dict[str, float]] = {}
        for task_name, task in self.tasks.items():
            for name, regret in task.regrets.items():
                rows.setdefault(name, {})[task_name] = regret
        regrets = {name: summarize_regrets(row) for name, row in rows.items() if len(row) == len(self.tasks)}
        return dict(sorted(regrets.items(), key=lambda item: item[1].mean))

    @property
    def name(self) -> str:
        """Name of the optimizer among the published ones."""
        return next(iter(self.tasks.values())).name
