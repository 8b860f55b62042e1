"""Plan of a race, which is fixed before the race starts."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from gradprix.rules import Choice
from gradprix.stats.alpha_spending import ANALYSIS_SEEDS
from gradprix.stats.tuning_variance import PRIOR_ONE_SEARCH, PRIOR_TWOFOLD
from gradprix.stats.verdict import MOST_SEEDS, detectable_difference
from gradprix.tasks import Task
from gradprix.tasks.loop import Loop
from gradprix.tasks.schedules import count_steps, examples_a_pass, passes, shorten
from gradprix.training.trial import Trial
from gradprix.tuning import make_tuner
from gradprix.tuning.tuner import REPLICATED, Tuner
from gradprix.tuning.twofold import TwofoldTuner

from .entry import Entry
from .plan_description import Omission
from .plan_json import describe_plan
from .plan_limits import FEWEST_STEPS, SEEDS, TRIALS, USUAL_CLIP_NORM, USUAL_SAM_RHO, check_ranges

QUARTER, QUARTER_SEEDS = 0.25, 4
"""Share of the examples in the runs that show how the ranking depends on the budget, and the number of their seeds."""


class RacePhase(NamedTuple):
    """Phase of a race.

    Args:
        name: `tuning` or `final`.
        runs: number of runs of each entry, by its name.
    """

    name: str
    runs: dict[str, int]


@dataclass(frozen=True)
class Locations:
    """Names by which the user gave the task and optimizers of a plan, as far as they were given by names.

    Args:
        task: name of a built-in task, or location of the user's own; None for an object.
        preset: size of a built-in task.
        optimizers: location of each optimizer of the user, such as `mine.py:MyOpt`, by the name of its entry.
    """

    task: str | None = None
    preset: str | None = None
    optimizers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Complete specification of a race.

    Args:
        task: task or training loop, with the epochs, batch size, schedule and margin of this race.
        entries: optimizers that take part.
        trials: number of tuning trials per entry.
        seeds: maximum number of final seeds, which all entries share; see `analysis_seeds`.
        seed: base random seed; races with different base seeds share no seed.
        compiled: compile the stacked models with `torch.compile`.
        left_out: reductions of the requested plan to fit a time budget.
        baseline: name of the entry that all others are compared with; None compares all pairs.
        device: device of the models, as a torch device string; `"auto"` selects a GPU if it is faster.
        locations: where the code of the task and of the optimizers is; it affects no result.
    """

    task: Task | Loop
    entries: tuple[Entry, ...]
    trials: int = TRIALS
    seeds: int = SEEDS
    seed: int = 0
    compiled: bool = False
    left_out: tuple[Omission, ...] = ()
    baseline: str | None = None
    device: str = "auto"
    locations: Locations = field(default_factory=Locations, compare=False)

    def __post_init__(self) -> None:
        check_ranges(self.trials, self.seeds, self.seed, self.task.metric.margin, self.device)
        if isinstance(self.task, Loop):
            if own := [entry.name for entry in self.entries if entry.batch_size is not None]:
                raise ValueError(
                    f"{own[0]} has a batch size of its own, but a training loop chooses its batches itself. Leave "
                    f"{own[0]} out."
                )
            if training := [entry for entry in self.entries if entry.schedule is not None or entry.sam_rho is not None]:
                raise ValueError(
                    f"{training[0].name} sets a schedule or sam_rho, but a training loop has its own steps. Leave them "
                    "out."
                )
            if self.device not in ("auto", "cpu"):
                raise ValueError(
                    f"device = {self.device!r}: a training loop chooses its device itself. Leave device out."
                )
        if self.baseline is not None and self.baseline not in (names := [entry.name for entry in self.entries]):
            raise ValueError(f"baseline = {self.baseline!r}: it must be one of {', '.join(names)}.")
        for entry in self.entries:
            self.tuner(entry)  # raises for a space with too few points

    def tuner(self, entry: Entry) -> Tuner:
        """Create the tuner of an entry."""
        default = {"batch_size": self.batch_size(entry), "schedule": entry.schedule or self.task.schedule}
        default |= {"clip_norm": self._clip_norm or USUAL_CLIP_NORM, "sam_rho": entry.sam_rho or USUAL_SAM_RHO}
        default |= {**entry.rule_defaults, "lr": entry.default_rate}
        default |= {name: axis.from_unit(0.5) for name, axis in entry.space.items() if default.get(name) is None}
        stream = hashlib.sha256(f"{self.seed} {entry.name} {entry.replicate}".encode()).digest()
        return make_tuner(entry.space, default, self.trials, entry.offset, int.from_bytes(stream[:8]))

    def tuning_trial(self, entry: Entry, point: Mapping[str, Any], seed: int) -> Trial:
        """Return a tuning trial of an entry.

        Args:
            entry: entry of the race.
            point: values of the tuned hyperparameters.
            seed: index of the tuning seed. Tuning seeds differ from all final seeds.
        """
        number = 10_000 * self.seed + 1_000 + MOST_SEEDS // REPLICATED * entry.replicate + seed
        return self._trial(entry, point, number, False)

    def careful_trial(self, entry: Entry, seed: int) -> Trial:
        """Return a trial that is unlikely to diverge, for checks of a task.

        It has the smallest learning rate of the search space, and the middle of all other search ranges.
        """
        point = {name: axis.from_unit(0.0 if name == "lr" else 0.5) for name, axis in entry.space.items()}
        return self.tuning_trial(entry, point, seed)

    def final_trial(self, entry: Entry, point: Mapping[str, Any], seed: int, share: float = 1.0) -> Trial:
        """Return a final trial of an entry at its tuned point, on a held-out seed, with a share of the examples."""
        trial = self._trial(entry, point, 10_000 * self.seed + 1 + seed, True)
        count = self._data_size
        if share == 1.0 or count is None:
            return trial
        return replace(trial, epochs=shorten(trial.epochs, share, count, trial.batch_size))

    def _trial(self, entry: Entry, point: Mapping[str, Any], seed: int, is_final: bool) -> Trial:
        size = point.get("batch_size", self.batch_size(entry))
        schedule = point.get("schedule", entry.schedule or self.task.schedule)
        epochs, values = self.task.epochs, entry.values(**point)
        clip_norm, sam_rho = point.get("clip_norm", self._clip_norm), point.get("sam_rho", entry.sam_rho)
        return Trial(entry.rule, values, seed, size, epochs, schedule, is_final, entry.name, clip_norm, sam_rho)

    @property
    def _clip_norm(self) -> float | None:
        """Maximum norm of the gradient, unless it is tuned."""
        return self.task.clip_norm if isinstance(self.task, Task) else None

    def batch_size(self, entry: Entry) -> int:
        """Return the batch size of an entry that does not tune it; 0 means full-batch training."""
        return self.task.batch_size if entry.batch_size is None else entry.batch_size

    @cached_property
    def _data_size(self) -> int | None:
        """Number of different training examples, which takes a split of the data; None for a custom training loop."""
        return None if isinstance(self.task, Loop) else len(self.task.loaded.split(0).train)

    @property
    def examples(self) -> int | None:
        """Number of training examples per run; None for a custom training loop."""
        count = self._data_size
        return None if count is None else passes(self.task.epochs) * examples_a_pass(count, self.task.epochs)

    def examples_of(self, trial: Trial) -> int | None:
        """Return the number of training examples of a trial; None for a custom training loop."""
        count = self._data_size
        return None if count is None else passes(trial.epochs) * examples_a_pass(count, trial.epochs)

    def steps_of(self, trial: Trial) -> int | None:
        """Return the number of optimizer steps of a trial; None for a custom training loop."""
        count = self._data_size
        return None if count is None else count_steps(count, trial.batch_size, trial.epochs)

    def updates(self, entry: Entry, batch_size: int | None = None) -> int | None:
        """Return the number of optimizer steps per run; None for a custom training loop.

        Args:
            entry: entry of the race.
            batch_size: batch size; None means the batch size of the entry.
        """
        count, size = self._data_size, self.batch_size(entry) if batch_size is None else batch_size
        return None if count is None else count_steps(count, size, self.task.epochs)

    @property
    def tuned(self) -> list[str]:
        """Names of all tuned hyperparameters, the learning rate first."""
        names = dict.fromkeys(name for entry in self.entries for name in entry.space)
        return sorted(names, key=lambda name: name != "lr")

    @property
    def phases(self) -> list[RacePhase]:
        """Phases of the race: all phases of tuning, then the final runs."""
        sizes = {entry.name: [phase.trials for phase in self.tuner(entry).phases] for entry in self.entries}
        tuning = [
            RacePhase("tuning", {name: each[i] for name, each in sizes.items() if i < len(each)})
            for i in range(max(map(len, sizes.values())))
        ]
        quarter = [RacePhase("quarter", self.quarter_runs)] * bool(self.quarter_runs)
        return [*tuning, RacePhase("final", dict.fromkeys(sizes, self.seeds)), *quarter]

    @property
    def analysis_seeds(self) -> list[int]:
        """Numbers of final seeds after which the race is analysed. It ends at the first conclusive analysis."""
        last = min(self.seeds, ANALYSIS_SEEDS[-1])  # which has the rest of the error, also with more seeds than that
        return [seeds for seeds in ANALYSIS_SEEDS if seeds < last] + [self.seeds]

    @property
    def quarter_runs(self) -> dict[str, int]:
        """Number of runs with a quarter of the examples of each entry for which these have enough steps.

        Empty for a custom training loop, and if fewer than two entries would be compared.
        """
        names = [entry.name for entry in self.entries if self._fewest_updates(entry) * QUARTER >= FEWEST_STEPS]
        return dict.fromkeys(names if len(names) > 1 else (), min(QUARTER_SEEDS, self.seeds))

    def _fewest_updates(self, entry: Entry) -> int:
        """Return the number of optimizer steps per run at the largest batch size; 0 for a custom training loop."""
        axis = entry.space.get("batch_size")
        sizes = axis.values if isinstance(axis, Choice) else (None,)
        return min(self.updates(entry, size) or 0 for size in sizes)

    @property
    def runs(self) -> int:
        """Maximum number of training runs of the race."""
        return self.tuning_runs + len(self.entries) * self.seeds + sum(self.quarter_runs.values())

    @property
    def tuning_runs(self) -> int:
        """Number of tuning runs of the race: `trials` for each entry, but one for an entry that tunes nothing."""
        return sum(self.trials if entry.space else 1 for entry in self.entries)

    @property
    def minimum_detectable_difference(self) -> float:
        """Minimum detectable difference (80 % power), in standard deviations of a paired difference."""
        return detectable_difference(len(self.entries), self.seeds, self.baseline is not None)

    @property
    def expected_tuning_deviation(self) -> float:
        """Standard deviation of an entry's mean from tuning, as on built-in tasks; relative to it if the margin is."""
        twofold = all(isinstance(self.tuner(entry), TwofoldTuner) for entry in self.entries)
        return (PRIOR_TWOFOLD if twofold else PRIOR_ONE_SEARCH) * self.task.metric.margin

    @cached_property
    def description(self) -> dict[str, Any]:
        """Plan as JSON-compatible dictionary. It contains everything that the numbers of the race depend on."""
        return describe_plan(self)

    @property
    def key(self) -> str:
        """Hash of the plan's description."""
        return hashlib.sha256(json.dumps(self.description, sort_keys=True).encode()).hexdigest()[:16]
