"""Summary of a suite. Where the name of a field in JSON differs from the attribute, it is given by `name=`."""

import msgspec
from msgspec import field

from gradprix.stats.verdict import PairVerdict

from .plan_description import MetricDescription, Value


class PairSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Comparison of two entries on a task; see `Pair`."""

    a: str
    b: str
    difference: float
    ci95: tuple[float, float]
    verdict: PairVerdict = field(name="words")


class TaskSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Summary of the race on one task of a suite.

    Args:
        margin: smallest difference that matters, in the metric's units.
        candidates: entries of which any will do, best mean first: the bound of their regret is at most the margin, and
            their mean at most a quarter of a margin behind the best. Empty if no entry is shown to be so close.
        recommended: name of the recommended entry: the tie-break among the candidates, or the best mean.
        too_variable: entries that no entry wins against, but that are too variable to rank. `leaders` does not contain
            them.
        regrets: difference of each entry's mean from the best mean, in margins.
        bounds: upper bound of each entry's regret, in margins; empty for records of earlier versions. This field and
            those below without a value are in such records.
        level: confidence level of the bounds, which hold simultaneously.
        error_rate: family-wise error rate of the comparisons, which the interim analyses have spent.
        tuning_deviation: standard deviation of an entry's mean due to tuning, in margins.
        tolerances: learning-rate tolerance of each entry, in decades.
        at_edge: entries whose tuned learning rate is at the edge of the search range. A wider range may improve them.
    """

    metric: MetricDescription
    chance_level: float = field(name="trivial")
    about: str
    margin: float
    means: dict[str, float]
    leaders: tuple[str, ...] = field(name="leads")
    too_variable: tuple[str, ...] = field(name="vague")
    recommended: str = field(name="take")
    candidates: tuple[str, ...] = ()
    bounds: dict[str, float] = {}
    level: float | None = None
    error_rate: float | None = None
    tuning_deviation: float | None = None
    pairs: tuple[PairSummary, ...]
    regrets: dict[str, float]
    learning_rates: dict[str, Value] = field(name="rates")
    tolerances: dict[str, float] = field(name="windows")
    at_edge: tuple[str, ...] = field(name="ends")
    diverged: dict[str, int]
    trials: int
    seeds: int
    seconds: float


class ProfileCurve(msgspec.Struct, frozen=True):
    """Performance profile of one entry: fraction of its tasks on which its regret is at most each of `Profile.margins`.

    `low` and `high` are the ends of a 95 % bootstrap confidence band over tasks.
    """

    share: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class Profile(msgspec.Struct, frozen=True):
    """Performance profiles of all entries. `margins` are the regrets at which they are evaluated, in margins."""

    margins: tuple[float, ...]
    entries: dict[str, ProfileCurve]


class Regret(msgspec.Struct, frozen=True, kw_only=True):
    """Regret over tasks, in margins.

    Args:
        worst_task: name of the task with the largest regret.
        tasks: number of tasks: those on which the entry raced.
    """

    mean: float
    median: float
    largest: float = field(name="most")
    worst_task: str
    tasks: int


class Selection(msgspec.Struct, frozen=True):
    """Entries that are best by a criterion over tasks, and whether this depends on a single task.

    Args:
        entries: names of the entries, several if they are equal.
        without: the entries that would be best without one of the tasks, by its name, where they are others.
    """

    entries: tuple[str, ...]
    without: dict[str, tuple[str, ...]]


class Selections(msgspec.Struct, frozen=True, kw_only=True):
    """The best entries by several criteria, among those that raced on all tasks.

    Args:
        mean: smallest mean regret: the single choice for all tasks.
        median: smallest median regret.
        largest: smallest largest regret.
        leading: most often among the leaders.
        near: most often at most a margin behind the best mean.
    """

    mean: Selection
    median: Selection
    largest: Selection
    leading: Selection
    near: Selection


class TaskLeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """The single choice for all tasks, chosen without one of them.

    Args:
        task: name of the task that is left out.
        choice: name of the entry with the smallest mean regret over the other tasks.
        mean: its mean regret over the other tasks.
        regret: its regret on the task that is left out.
        overall_mean: mean regret over the other tasks of the entry that is chosen by all tasks.
        overall_largest: largest regret of that entry over the other tasks.
    """

    task: str
    choice: str
    mean: float
    regret: float
    overall_mean: float
    overall_largest: float


class SecondRace(msgspec.Struct, frozen=True, kw_only=True):
    """Race of two entries on a task with another base seed.

    Args:
        winner: name of the entry that won on this task in the suite.
        loser: name of the other entry.
        difference: mean difference, in margins; positive values favour `winner`.
        ci95: 95 % confidence interval of the difference.
        confirmed: True if `winner` wins again.
    """

    task: str
    winner: str
    loser: str
    seed: int
    seeds: int
    difference: float
    ci95: tuple[float, float]
    confirmed: bool


class RankReversal(msgspec.Struct, frozen=True):
    """Pair of entries that win against each other on different tasks.

    Args:
        a: name of one entry.
        b: name of the other entry.
        a_wins: tasks on which `a` wins against `b`.
        b_wins: tasks on which `b` wins against `a`.
        weak_task: task on which the weaker side rests alone; None if both sides rest on several tasks. The weaker side
            has fewer tasks, or else the smaller difference in margins.
        second_race: race with other seeds on that task; None if there was none.
    """

    a: str
    b: str
    a_wins: tuple[str, ...]
    b_wins: tuple[str, ...]
    weak_task: str | None = None
    second_race: SecondRace | None = None

    @property
    def is_confirmed(self) -> bool:
        """True if both sides rest on several tasks, or the weaker one was confirmed by a second race."""
        return self.weak_task is None or (self.second_race is not None and self.second_race.confirmed)


class SuiteSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Summary of races on several tasks. An entry may be missing on some of them.

    Args:
        entries: names of the entries: first those that raced on all tasks, then the others, each sorted by mean regret.
        tasks: summary of the race on each task, by its name.
        profile: performance profiles (Dolan & Moré 2002, doi:10.1007/s101070100263), with differences from the best
            instead of ratios.
        regrets: regret of each entry over the tasks on which it raced.
        recommendation: regret of the recommended entry of each task.
        selections: the best entries by several criteria.
        left_out: the single choice without each task; empty if there is only one task.
        reversals: rank reversals, at a family-wise error rate of 5 % over all pairs and tasks.
        defaults: for each entry and task, True if the default settings were within the margin of the tuned settings.
    """

    entries: tuple[str, ...]
    tasks: dict[str, TaskSummary]
    profile: Profile
    regrets: dict[str, Regret] = field(name="single")
    recommendation: Regret
    selections: Selections
    left_out: tuple[TaskLeftOut, ...]
    reversals: tuple[RankReversal, ...] = field(name="crossings")
    defaults: dict[str, dict[str, bool]]

    @property
    def complete(self) -> tuple[str, ...]:
        """Names of the entries that raced on all tasks."""
        return tuple(name for name in self.entries if self.regrets[name].tasks == len(self.tasks))
