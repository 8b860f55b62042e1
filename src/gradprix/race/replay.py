"""Replay of a race from its training runs, which trains nothing, and comparison of the record with the saved one."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gradprix.executors.executor import Executor, Finished, StackResult, Watch
from gradprix.executors.scheduler import TrialStack
from gradprix.stats.alpha_spending import ANALYSIS_SEEDS, InterimAnalysis, NoAnalysisLeftError, next_level
from gradprix.tasks import Task
from gradprix.tasks.loop import Problem
from gradprix.training import STACKED, StackLayout
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trial import Outcome, Trial

from .efficiency import seconds_of_steps
from .journal import Journal
from .plan import Plan
from .protocol import run_in_journal
from .record import RaceRecord
from .record_json import to_json
from .resume import make_comparisons
from .value_comparison import Difference, compare_values

NOT_REPLAYED = frozenset(("cost.seconds", "reruns", "why", "versions.python"))
"""Parts of a record that do not follow from its runs: times, replications, the diagnosis, and the Python version."""
ROUNDING = 1e-9
"""Relative tolerance of numbers that were computed with other library versions or on another type of processor."""
ORDER = (r"entries\.\d+\.final\.(values|mean)\b", r"verdict\.", r"entries\.")
"""Places of values in a record, in the order in which their differences are listed; other places follow."""


class MissingRunsError(ValueError):
    """Raised if a race needs training runs that are not saved.

    Args:
        trials: the missing runs.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.trials = list(trials)
        super().__init__(f"{len(trials)} training runs are missing, such as {format_trial(trials[0])}.")


def format_trial(trial: Trial) -> str:
    """Return the name of a training run: entry, kind, tuned learning rate and seed."""
    rate = trial.values.get("lr")
    kind = "final" if trial.evaluates_test else "tuning"
    return f"{trial.entry_name}, {kind} run{'' if rate is None else f' at lr={rate:g}'}, seed {trial.seed}"


class RecordedRuns(Executor):
    """Executor that returns saved outcomes, and refuses to train.

    Args:
        outcomes: outcomes by the key of the trial.
        step_seconds: seconds of a step of each entry, as they were measured.
        environment: versions and processor of the runs.
        find_failed: function that returns the outcome of a run that failed; None for all other runs.

    Attributes:
        used: trials that the race asked for, by their keys.
    """

    def __init__(
        self,
        outcomes: Mapping[str, Outcome],
        step_seconds: Mapping[str, float | None],
        environment: str,
        find_failed: Callable[[Trial], Outcome | None] = lambda trial: None,
    ) -> None:
        super().__init__()
        self.outcomes, self.step_seconds, self.environment = dict(outcomes), step_seconds, environment
        self.find_failed = find_failed
        self.used: dict[str, Trial] = {}

    @property
    def workers(self) -> int:
        """One."""
        return 1

    def describe_provenance(self, plan: Any, device: str) -> str:
        """Return the versions and processor of the saved runs."""
        return self.environment

    def run(
        self,
        task: Problem,
        trials: Sequence[Trial],
        watch: Watch = lambda done: None,
        mode: ExecutionMode = STACKED,
        later_phases: int = 0,
        has_succeeded: bool = False,
        live: Path | None = None,
    ) -> Iterator[Finished]:
        """Yield the saved outcomes of trials.

        Raises:
            MissingRunsError: if a trial is not saved.
        """
        for trial in trials:
            if trial.key not in self.outcomes and (failed := self.find_failed(trial)) is not None:
                self.outcomes[trial.key] = failed
        if missing := [trial for trial in trials if trial.key not in self.outcomes]:
            raise MissingRunsError(missing)
        self.used |= {trial.key: trial for trial in trials}
        yield list(trials), [self.outcomes[trial.key] for trial in trials]

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return the saved times of steps; every other call is refused."""
        seconds = [self.step_seconds.get(trial.entry_name) for trial in args[1]] if function is seconds_of_steps else []
        if not seconds or None in seconds:
            self._refuse()
        return seconds

    def choose_layout(self, task: Task, trials: Sequence[Trial], mode: ExecutionMode) -> StackLayout:
        """Refuse to train."""
        self._refuse()

    def call_workers(self, count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """Refuse to call anything."""
        self._refuse()

    def submit(self, stack: TrialStack) -> None:
        """Refuse to train."""
        self._refuse()

    def completed(self, timeout: float) -> list[tuple[TrialStack, StackResult]]:
        """Return nothing: nothing is trained."""
        return []

    def cancel(self, stacks: Sequence[TrialStack]) -> None:
        """Do nothing: nothing is trained."""

    def _refuse(self) -> NoReturn:
        raise RuntimeError("a replay trains nothing.")


def replay(plan: Plan, runs: RecordedRuns, mode: ExecutionMode, analyses: Sequence[InterimAnalysis]) -> RaceRecord:
    """Run a race from its saved runs, and return its record.

    Args:
        plan: plan of the race.
        runs: saved runs.
        mode: execution mode of the race.
        analyses: interim analyses of the race.

    Raises:
        MissingRunsError: if a run is missing.
    """
    with Journal(None) as journal:
        journal.write("plan", plan.description)
        journal.mode = mode
        journal.interim_analyses, journal.comparisons = list(analyses), make_comparisons(plan)
        return run_in_journal(plan, journal, runs).record


def follows_schedule(analyses: Sequence[InterimAnalysis]) -> bool:
    """Return True if interim analyses have their planned levels, and none that was due earlier was left out.

    A race that was extended may have more analyses than its plan has now.
    """
    for i, (seeds, level) in enumerate(analyses):
        before = list(analyses[:i])
        done = {count for count, _ in before}
        due = [count for count in ANALYSIS_SEEDS if count < min(seeds, ANALYSIS_SEEDS[-1]) and count not in done]
        if any(_level(before, count) is not None for count in due) or _level(before, seeds) != level:
            return False
    return True


def _level(before: Sequence[InterimAnalysis], seeds: int) -> float | None:
    """Return the level of an analysis; None if no error is left for it."""
    try:
        return next_level(before, seeds)
    except NoAnalysisLeftError:
        return None


def compare_records(stated: Mapping[str, Any], replayed: RaceRecord, tolerance: float = 0.0) -> list[Difference]:
    """Return the values of a saved record that do not follow from the runs: scores first, then the verdict.

    Args:
        stated: JSON form of the saved record.
        replayed: record of the replay.
        tolerance: relative tolerance of numbers; 0 requires equality.
    """
    differences = [
        difference
        for difference in compare_values(stated, to_json(replayed), tolerance)
        if not any(f"{difference.where}.".startswith(f"{part}.") for part in NOT_REPLAYED)
    ]
    return sorted(differences, key=_place_in_order)


def _place_in_order(difference: Difference) -> int:
    return next((i for i, pattern in enumerate(ORDER) if re.match(pattern, difference.where)), len(ORDER))
