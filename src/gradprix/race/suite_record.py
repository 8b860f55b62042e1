"""Summary of a suite; where a field's name in JSON differs from the attribute, `name=` gives it."""

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
    """Race of a suite.

    Args:
        margin: smallest difference that matters, in the metric's units.
        too_variable: leaders that are too variable to rank, which `leaders` does not contain.
        regrets: difference of each entry's mean from the best mean, in margins.
        tolerances: learning-rate tolerance of each entry, in decades.
        at_edge: entries whose best learning rate is at the edge of the grid, so that a wider grid may improve them.
    """

    metric: MetricDescription
    chance_level: float = field(name="trivial")
    about: str
    margin: float
    means: dict[str, float]
    leaders: tuple[str, ...] = field(name="leads")
    too_variable: tuple[str, ...] = field(name="vague")
    recommended: str = field(name="take")
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
    """Share of tasks within each number of margins, with a 95 % bootstrap band over tasks."""

    share: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class Profile(msgspec.Struct, frozen=True):
    """Performance profile of each entry at some numbers of margins."""

    margins: tuple[float, ...]
    entries: dict[str, ProfileCurve]


class Regret(msgspec.Struct, frozen=True):
    """Mean and largest regret of an entry over the tasks, in margins."""

    mean: float
    largest: float = field(name="most")


class RankReversal(msgspec.Struct, frozen=True):
    """Two entries, and the tasks on which each wins against the other."""

    a: str
    b: str
    a_wins: tuple[str, ...]
    b_wins: tuple[str, ...]


class SuiteSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Summary of races with the same entries on several tasks.

    Args:
        entries: names, sorted by mean regret.
        profile: for each entry the share of tasks on which its regret is at most each number of margins (performance
            profile, Dolan & Moré 2002, doi:10.1007/s101070100263, with differences instead of ratios).
        regrets: regret of each entry over all tasks.
        reversals: rank reversals, at a family-wise error rate of 5 % over all pairs and tasks.
        defaults: for each entry and task, whether its default settings were within the margin of its tuned ones.
    """

    entries: tuple[str, ...]
    tasks: dict[str, TaskSummary]
    profile: Profile
    regrets: dict[str, Regret] = field(name="single")
    reversals: tuple[RankReversal, ...] = field(name="crossings")
    defaults: dict[str, dict[str, bool]]
