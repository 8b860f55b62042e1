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
        too_variable: entries that no entry wins against, but that are too variable to rank. `leaders` does not contain
            them.
        regrets: difference of each entry's mean from the best mean, in margins.
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
    """Performance profile of one entry: fraction of tasks on which its regret is at most each of `Profile.margins`.

    `low` and `high` are the ends of a 95 % bootstrap confidence band over tasks.
    """

    share: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class Profile(msgspec.Struct, frozen=True):
    """Performance profiles of all entries. `margins` are the regrets at which they are evaluated, in margins."""

    margins: tuple[float, ...]
    entries: dict[str, ProfileCurve]


class Regret(msgspec.Struct, frozen=True):
    """Mean and largest regret of an entry over the tasks, in margins."""

    mean: float
    largest: float = field(name="most")


class RankReversal(msgspec.Struct, frozen=True):
    """Pair of entries that win against each other on different tasks.

    Args:
        a: name of one entry.
        b: name of the other entry.
        a_wins: tasks on which `a` wins against `b`.
        b_wins: tasks on which `b` wins against `a`.
    """

    a: str
    b: str
    a_wins: tuple[str, ...]
    b_wins: tuple[str, ...]


class SuiteSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Summary of races with the same entries on several tasks.

    Args:
        entries: names of the entries, sorted by mean regret.
        tasks: summary of the race on each task, by its name.
        profile: performance profiles (Dolan & Moré 2002, doi:10.1007/s101070100263), with differences from the best
            instead of ratios.
        regrets: mean and largest regret of each entry over the tasks.
        reversals: rank reversals, at a family-wise error rate of 5 % over all pairs and tasks.
        defaults: for each entry and task, True if the default settings were within the margin of the tuned settings.
    """

    entries: tuple[str, ...]
    tasks: dict[str, TaskSummary]
    profile: Profile
    regrets: dict[str, Regret] = field(name="single")
    reversals: tuple[RankReversal, ...] = field(name="crossings")
    defaults: dict[str, dict[str, bool]]
