"""Record of tuning one optimizer. It contains only numbers and codes; texts, HTML page and JSON are made from it."""

import msgspec

from .best import Best
from .plan_description import PlanDescription, Value
from .record import FinalRuns
from .run_records import FailedRun, Rerun, TuningRun

CLIFF = 3.0
"""Factor above the tuned learning rate up to which divergence causes a warning. The edge of stability shifts by such
factors between seeds, in longer runs, and with larger models."""
DISAGREEMENT = 3.0
"""Factor between the learning rates that two searches chose, above which the tuned learning rate is uncertain."""


class SmoothedMetric(msgspec.Struct, frozen=True, kw_only=True):
    """Response curve: the smoothed validation metric of an average tuning seed.

    Args:
        learning_rates: learning rates at which the curve was evaluated, ascending.
        metrics: smoothed metric at each learning rate.
        seed_effects: effect of each tuning seed: its metric minus that of an average seed.
    """

    learning_rates: tuple[float, ...] = msgspec.field(name="lr")
    metrics: tuple[float, ...] = msgspec.field(name="metric")
    seed_effects: dict[int, float]


class DefaultComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Comparison of the default settings with the tuned ones, on the same held-out seeds.

    Args:
        settings: default values of the tuned hyperparameters.
        final: final runs at the default settings.
        loss: amount by which the default settings are worse, in the metric's units; negative if they are better.
        ci95: 95 % confidence interval of `loss`.
    """

    settings: dict[str, Value]
    final: FinalRuns
    loss: float
    ci95: tuple[float, float]

    @property
    def is_better(self) -> bool:
        """True if the default settings are significantly better."""
        return self.ci95[1] < 0


class TuneRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Record of tuning one optimizer.

    Args:
        best: the optimizer with its tuned hyperparameters.
        tuned: values of the tuned hyperparameters.
        choices: values that each independent search chose.
        edges: names of the hyperparameters whose tuned value is at an edge of the tried range.
        tolerance: smallest and largest learning rate within a margin of the best; None if every run diverged.
        margin: the smallest difference that matters, in the metric's units.
        curve: response curve; None if every run diverged.
        final: final runs at the tuned settings.
        default: comparison with the default settings; None if the learning rate has no default.
        runs: tuning runs, in the order of the tuner's requests.
        failed: runs that could not be trained.
        reruns: final runs that were repeated in a new process.
        seconds: total training time; time between interrupted and resumed calls is not counted.
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
        """Return the metric of a tuning run minus the effect of its seed, to compare runs on different seeds."""
        return run.metric - (0.0 if self.curve is None else self.curve.seed_effects.get(run.seed, 0.0))

    @property
    def chosen_rates(self) -> list[float]:
        """Learning rate that each independent search chose."""
        return [float(choice["lr"]) for choice in self.choices]  # type: ignore[arg-type]

    @property
    def disagreement(self) -> float:
        """Ratio of the largest to the smallest of `chosen_rates`; 1 if there was only one search."""
        return max(self.chosen_rates) / min(self.chosen_rates)

    @property
    def is_uncertain(self) -> bool:
        """True if the searches chose very different learning rates, and not all of them are within the tolerance."""
        low, high = self.tolerance or (self.learning_rate, self.learning_rate)
        return self.disagreement > DISAGREEMENT and not all(low <= rate <= high for rate in self.chosen_rates)

    @property
    def cliff(self) -> float | None:
        """Smallest learning rate above the tuned one at which a tuning run diverged.

        None if no run diverged within a factor of `CLIFF` above the tuned learning rate.
        """
        diverged = [run.learning_rate for run in self.runs if run.diverged is not None]
        return min((lr for lr in diverged if self.learning_rate < lr <= CLIFF * self.learning_rate), default=None)
