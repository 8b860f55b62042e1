"""Control of a comparison with published runs: some of them are repeated on this machine.

Another type of CPU rounds otherwise, which is noise around the same mean; see `seed_noise`. Other data, or a library
that computes something else, change the mean, and a comparison would be meaningless.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from statistics import fmean

import msgspec
import numpy as np
from scipy import stats

from gradprix.training.trial import Outcome

from .analysis import final_score
from .plan_description import MetricDescription
from .published_task import PublishedEntry, PublishedTask
from .seed_noise import difference_deviation, largest_mean

CONTROL_ENTRIES = ("adamw", "muon", "minibatch", "soap")
"""Entries whose final runs are repeated first, if the published suite has them: two that act on elements, and two that
multiply matrices, whose rounding differs most between CPUs."""
MOST_ENTRIES = 8
"""Number of entries whose final runs are repeated. In simulations of the published tasks, a shift of all means is
refused in nine of ten cases from 1.9 deviations between seeds on (with four entries: from 2.8 on), from 1.5 if a
quarter of the runs ends elsewhere, and from half a margin if none does."""
CONTROL_SEEDS = 2
"""Number of final runs of each of these entries that are repeated."""
ROUNDING_DEVIATION = 0.1
"""Standard deviation, in margins, of a shift of all means of a task on another CPU: an upper bound. No shift was found
on `digits`, −0.02 ± 0.05 margins (two standard errors), and on `tailed`, 0.03 ± 0.03, although a quarter of the runs of
`tailed` ended elsewhere (studies/suite_entry.py)."""
MOST_SCATTER = 2.0
"""Standard deviation between seeds, as a multiple of the median of all entries, above which an entry is no control."""
REFUSED_LEVEL = 0.001
"""Probability that a control is refused although only rounding differs."""


class Agreement(StrEnum):
    """Agreement of repeated runs with the published ones."""

    EXACT = "exact"
    ROUNDING = "rounding"


class ControlRun(msgspec.Struct, frozen=True, kw_only=True):
    """Published final run that was repeated.

    Args:
        entry: name of the entry.
        seed: index of the final seed.
        published: its published metric.
        here: metric of its repetition.
    """

    entry: str
    seed: int
    published: float
    here: float


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """Repeated runs of a published task, and their agreement with the published ones.

    Args:
        deviation: standard deviation, in the metric's units, of a shift between this machine and the published runs;
            0 if the runs agree exactly.
    """

    runs: tuple[ControlRun, ...]
    agreement: Agreement
    deviation: float

    @property
    def differing(self) -> int:
        """Number of runs that ended elsewhere."""
        return sum(run.here != run.published for run in self.runs)


class ControlError(ValueError):
    """Raised if repeated runs differ from the published ones by more than rounding explains."""


def control_entries(published: PublishedTask) -> list[PublishedEntry]:
    """Return the published entries whose runs are repeated: those of `CONTROL_ENTRIES`, filled up with others.

    Entries of which a run diverged are left out, and those whose runs scatter much more than the others', which would
    hide a difference.
    """
    deviations = {entry.name: float(np.std(entry.values, ddof=1)) for entry in published.entries}
    largest = MOST_SCATTER * float(np.median(list(deviations.values())))
    stable = [entry for entry in published.entries if not entry.diverged and deviations[entry.name] <= largest]
    chosen = [entry for entry in stable if entry.name in CONTROL_ENTRIES]
    others = [entry for entry in stable if entry not in chosen]
    return [*chosen, *others][:MOST_ENTRIES]


def compare_control(published: PublishedTask, outcomes: Mapping[str, Sequence[Outcome]]) -> Control:
    """Compare repeated runs with the published ones.

    The mean of all differences is compared with both bounds of `largest_mean`, and their mean square with that of
    differences between seeds, each at a third of `REFUSED_LEVEL`.

    Args:
        published: the published task.
        outcomes: outcomes of the repeated runs by name of the entry, in the order of the seeds.

    Raises:
        ControlError: if the runs differ by more than rounding explains.
    """
    values = published.values
    runs = tuple(
        ControlRun(
            entry=name, seed=seed, published=values[name][seed], here=final_score(outcome, published.chance_level)
        )
        for name, each in outcomes.items()
        for seed, outcome in enumerate(each)
    )
    differences = [run.here - run.published for run in runs]
    if not any(differences):
        return Control(runs=runs, agreement=Agreement.EXACT, deviation=0.0)
    variance = float(np.mean([np.var(values[name], ddof=1) for name in outcomes]))
    deviation, freedom, level = difference_deviation(variance), len(outcomes) * (published.seeds - 1), REFUSED_LEVEL / 3
    mean, largest = fmean(differences), largest_mean(differences, deviation, published.margin, level, freedom)
    largest_square = stats.f.isf(level, len(runs), freedom) * deviation**2
    if abs(mean) > largest or np.mean(np.square(differences)) > largest_square:
        raise ControlError(_describe_refusal(published, runs, mean, largest))
    return Control(runs=runs, agreement=Agreement.ROUNDING, deviation=ROUNDING_DEVIATION * published.margin)


def _describe_refusal(published: PublishedTask, runs: Sequence[ControlRun], mean: float, largest: float) -> str:
    metric: MetricDescription = published.metric
    unit, name = (100.0, " points") if metric.percent else (1.0, "")
    worst = max(runs, key=lambda run: abs(run.here - run.published))
    versions = ", ".join(f"{package} {version}" for package, version in published.versions.items())
    return (
        f"the published suite cannot be compared with on {published.task}: {len(runs)} of its final runs were repeated "
        f"here, and their {metric.name} differs by {unit * mean:+.2g}{name} on average, by "
        f"{unit * (worst.here - worst.published):+.2g}{name} for {worst.entry} with seed {worst.seed}; rounding "
        f"explains {unit * largest:.2g}{name} on average. The data or a library differ (published with {versions}). "
        "Race your optimizer against others on this machine instead: gradprix suite --optimizers."
    )
