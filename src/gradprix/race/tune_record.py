"""Record of tuning one optimizer: numbers and codes alone, from which texts, page and `--json` are made."""

import msgspec

from .best import Best
from .plan_description import PlanDescription, Value
from .record import FinalRuns
from .run_records import FailedRun, Rerun, TuningRun

CLIFF = 3.0
"""Divergence within this factor above the tuned learning rate deserves a warning: seeds, longer runs and larger models
move the edge of stability by such factors."""
DISAGREEMENT = 3.0
"""Factor between the choices of the two searches above which the tuned learning rate is uncertain."""


class SmoothedMetric(msgspec.Struct, frozen=True, kw_only=True):
    """Response curve: the smoothed validation metric of an average tuning seed.

    Args:
        learning_rates: learning rates, ascending.
        metrics: metric at each of them.
        seed_effects: by how much the metric of each seed exceeds the average.
    """

    learning_rates: tuple[float, ...] = msgspec.field(name="lr")
    metrics: tuple[float, ...] = msgspec.field(name="metric")
    seed_effects: dict[int, float]


class DefaultComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Comparison of the default settings with the tuned ones, on the same held-out seeds.

    Args:
        settings: default values of the tuned hyperparameters.
        final: final runs at the default settings.
        loss: by how much the default settings are worse, in the metric's units; negative if they are better.
        ci95: its 95 % confidence interval.
    """

    settings: dict[str, Value]
    final: FinalRuns
    loss: float
    ci95: tuple[float, float]


class TuneRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Record of tuning one optimizer.

    Args:
        best: the optimizer with its tuned hyperparameters.
        tuned: the tuned values.
        choices: the values that each independent search chose.
        edges: tuned hyperparameters at an edge of the tried range.
        tolerance: smallest and largest learning rate within a margin of the best; None if every run diverged.
        margin: the smallest difference that matters, in the metric's units.
        curve: response curve; None if every run diverged.
        final: final runs at the tuned settings.
        default: comparison with the default settings; None if the learning rate has no default.
        runs: tuning runs, in the order of the tuner's requests.
        failed: runs that could not be trained.
        reruns: final runs that were repeated in a new process.
        seconds: training time without interruptions.
    """

    task: str
    about: str
    best: Best
    tuned: dict[str, Value]
    choices: tuple[dict[str, Value], ...]
    edges: tuple[str, ...]
    tolerance: tuple[float, float] | None
    margin: float
    curve: SmoothedMetric | None
    final: FinalRuns
    default: DefaultComparison | None
    runs: tuple[TuningRun, ...]
    failed: tuple[FailedRun, ...]
    reruns: tuple[Rerun, ...]
    plan: PlanDescription
    seconds: float
    versions: dict[str, str]

    @property
    def learning_rate(self) -> float:
        """The tuned learning rate."""
        return float(self.tuned["lr"])  # type: ignore[arg-type]

    def adjusted_metric(self, run: TuningRun) -> float:
        """Return the metric of a tuning run without the effect of its seed, as the tolerance compares runs."""
        return run.metric - (0.0 if self.curve is None else self.curve.seed_effects.get(run.seed, 0.0))

    @property
    def chosen_rates(self) -> list[float]:
        """Learning rates that the independent searches chose."""
        return [float(choice["lr"]) for choice in self.choices]  # type: ignore[arg-type]

    @property
    def disagreement(self) -> float:
        """Factor between the largest and the smallest of `chosen_rates`; 1 if there was one search."""
        return max(self.chosen_rates) / min(self.chosen_rates)

    @property
    def is_uncertain(self) -> bool:
        """True if the independent searches disagree, and not because a wide range of learning rates is as good."""
        low, high = self.tolerance or (self.learning_rate, self.learning_rate)
        return self.disagreement > DISAGREEMENT and not all(low <= rate <= high for rate in self.chosen_rates)

    @property
    def cliff(self) -> float | None:
        """Smallest learning rate, within a factor `CLIFF` above the tuned one, at which a tuning run diverged."""
        diverged = [run.learning_rate for run in self.runs if run.diverged is not None]
        return min((lr for lr in diverged if self.learning_rate < lr <= CLIFF * self.learning_rate), default=None)
