"""Execution of the phases of a race: outcomes in the journal are reused, the remaining trials are run."""

import math
import time
from collections.abc import Sequence
from itertools import chain
from statistics import fmean

from gradprix.executors.executor import Executor
from gradprix.integrations.loggers import Loggers
from gradprix.tasks import Task
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trial import Outcome, Trial
from gradprix.tuning.tuner import PhaseKind, Request, Score, TuningResult

from .analysis import Analysis
from .efficiency import seconds_of_steps
from .expensive_entries import warn_about_expensive_entries
from .journal import Journal
from .live_files import LiveFiles, LiveProgress, Watch
from .plan import Plan
from .record import Cost, EqualTime
from .reduced_budget import (
    TrialsByEntry,
    equal_time_trials,
    quarter_trials,
    summarize_equal_time,
    time_ratios,
)
from .rerun import MIN_TIMEOUT, REPEATED_SHARE, prepare, repeat
from .resume import choose_execution_mode
from .run_records import Finals, Rerun, TuningRun


class Runner:
    """Race in progress: runs trials, and collects their outcomes.

    Attributes:
        finished: outcome of each finished trial, by the key of the trial.
        saved: keys of the trials whose outcomes were read from the journal at the start.
        reused: keys of the trials of this race whose outcomes were reused from the journal.
        seconds: training time of the race, including that of earlier calls.
        runs_before_tuning: number of training runs in phases before tuning, for the progress display.
    """

    def __init__(
        self,
        plan: Plan,
        mode: ExecutionMode,
        journal: Journal,
        engine: Executor,
        watch: Watch,
        loggers: Loggers,
        live: LiveFiles,
    ) -> None:
        self.plan, self.mode, self.journal, self.engine, self.watch = plan, mode, journal, engine, watch
        self.loggers, self.live = loggers, live
        self.finished = journal.finished()
        self.saved = set(self.finished)
        self.reused: set[str] = set()
        self.seconds = journal.seconds
        self.runs_before_tuning = 0

    @classmethod
    def start(
        cls, plan: Plan, journal: Journal, engine: Executor, watch: Watch, loggers: Loggers, live: LiveFiles
    ) -> "Runner":
        """Choose the execution mode of a race, write it and the plan to the journal, and read the finished trials."""

        def prepare(progress: LiveProgress) -> None:
            live.describe(progress.phase)
            watch(progress)

        mode = choose_execution_mode(plan, journal, engine, prepare)
        if journal.mode is None:
            warn_about_expensive_entries(plan, mode, engine, prepare)
        journal.provenance = engine.describe_provenance(plan, mode.device)
        journal.write("plan", plan.description)
        watch(live.describe("Preparing the first training runs"))
        journal.mode = mode
        return cls(plan, mode, journal, engine, watch, loggers, live)

    def tune(self) -> tuple[dict[str, TuningResult], dict[str, list[TuningRun]]]:
        """Tune all entries concurrently. In each phase, the trials that all tuners request are run together.

        Returns:
            The result and the tuning runs of each entry.
        """
        entries = {entry.name: entry for entry in self.plan.entries}
        tuners = {name: self.plan.tuner(entry) for name, entry in entries.items()}
        runs: dict[str, list[TuningRun]] = {name: [] for name in entries}
        while active := {name: tuner for name, tuner in tuners.items() if not tuner.is_done}:
            trials = {
                name: [self.plan.tuning_trial(entries[name], dict(point), seed) for point, seed in tuner.ask()]
                for name, tuner in active.items()
            }
            phases_left = max(len(tuner.phases) - tuner.finished_phases for tuner in active.values())
            self.run_trials("tuning", list(chain(*trials.values())), sum(map(len, runs.values())), phases_left)
            for name, tuner in active.items():
                outcomes = [self.finished[trial.key] for trial in trials[name]]
                spread = tuner.phase.kind is PhaseKind.SPREAD
                each = zip(tuner.ask(), trials[name], outcomes, strict=True)
                runs[name] += [_tuning_run(*run, spread) for run in each]
                tuner.tell([self.score(outcome) for outcome in outcomes])
        prepare(self.plan, self.mode, self.engine)
        return {name: tuner.result for name, tuner in tuners.items()}, runs

    def run_finals(self, tuned: dict[str, TuningResult], seeds: int) -> tuple[Finals, Finals, float]:
        """Run every entry at its tuned point on the first `seeds` of the held-out final seeds.

        The runs with a quarter of the examples are part of the same phase, so that no worker waits for them.

        Returns:
            The final runs, those with a quarter of the examples, and the approximate seconds of one run.
        """
        full = {
            entry.name: [self.plan.final_trial(entry, dict(tuned[entry.name].point), seed) for seed in range(seeds)]
            for entry in self.plan.entries
        }
        (finals, quarter), seconds_per_run = self.run_final_trials(full, quarter_trials(self.plan, tuned))
        return finals, quarter, seconds_per_run

    def run_final_trials(self, *groups: TrialsByEntry) -> tuple[list[Finals], float]:
        """Run groups of final trials, by the name of their setting, in one phase.

        Returns:
            The runs of each group, and the approximate seconds of one run.
        """
        tuning_count = self.plan.tuning_runs
        trials = list(chain(*(each for group in groups for each in group.values())))
        seconds = self.run_trials("final", trials, tuning_count, phases_left=0)
        return list(map(self._pair, groups)), self.seconds / tuning_count if seconds is None else seconds

    def _pair(self, trials: TrialsByEntry) -> Finals:
        """Return the finished trials with their outcomes."""
        return {name: [(trial, self.finished[trial.key]) for trial in each] for name, each in trials.items()}

    def compare_in_equal_time(
        self,
        tuned: dict[str, TuningResult],
        finals: Finals,
        analysis: Analysis,
        step_seconds: dict[str, float | None],
    ) -> tuple[Finals, EqualTime | None]:
        """Run the slower entries with fewer examples, if their runs take much longer than the fastest leader's.

        Returns:
            These runs, and the comparison in equal time; none, if the runs of all entries take about as long.
        """
        ratios, seeds = time_ratios(self.plan, tuned, analysis, step_seconds), len(next(iter(finals.values())))
        trials = equal_time_trials(self.plan, tuned, ratios, seeds) if ratios else {}
        if ratios is None or not trials:
            return {}, None
        runs_before = self.plan.tuning_runs + len(self.plan.entries) * seeds + sum(self.plan.quarter_runs.values())
        self.run_trials("equal time", list(chain(*trials.values())), runs_before, phases_left=0)
        shortened = self._pair(trials)
        return shortened, summarize_equal_time(self.plan, ratios, shortened, finals, analysis)

    def cost(self, finals: Sequence[Finals], step_seconds: dict[str, float | None]) -> Cost:
        """Return the cost of the race, given its runs after tuning."""
        tuning_count, examples = self.plan.tuning_runs, self.plan.examples
        trials = [trial for runs in finals for each in runs.values() for trial, _ in each]
        return Cost(
            trials=tuning_count + len(trials),
            examples=None
            if examples is None
            else tuning_count * examples + sum(self.plan.examples_of(trial) or 0 for trial in trials),
            seconds=round(self.seconds, 2),
            step_seconds=step_seconds,
        )

    def repeat_finals(self, finals: Finals, seconds_per_run: float) -> dict[str, Rerun]:
        """Repeat some final runs in new processes, to detect user code that carries over state between runs.

        Args:
            finals: final runs of each entry.
            seconds_per_run: approximate duration of a run in seconds.

        Returns:
            The repeated runs, by the key of the trial.
        """
        self.describe("Repeating some final runs, to check that they are reproducible")
        seconds, patience = seconds_per_run * self.engine.workers, max(MIN_TIMEOUT, REPEATED_SHARE * self.seconds)
        reruns = repeat(self.plan, self.mode, self.engine, finals, seconds, patience, self.journal.reruns)
        self.journal.reruns = reruns
        return reruns

    def run_trials(self, phase: str, trials: list[Trial], runs_before: int, phases_left: int) -> float | None:
        """Run those trials that are not finished, and save each outcome as soon as it is known.

        Args:
            phase: name of the phase, for the progress display.
            trials: all trials of the phase.
            runs_before: number of training runs in earlier phases, from tuning on.
            phases_left: number of tuning phases that are not finished, including this one.

        Returns:
            Seconds per trial, or None if all trials were finished before.
        """
        self.reused |= {trial.key for trial in trials} & self.saved
        todo = list({trial.key: trial for trial in trials if trial.key not in self.finished}.values())

        runs_before += self.runs_before_tuning
        total = max(self.plan.runs, runs_before + len(trials))  # runs in equal time are not planned
        seconds_before, started = self.seconds, time.perf_counter()

        def watch(share: float) -> None:
            done = runs_before + len(trials) - len(todo) + share
            progress = self.live.update(phase, done, total, leader, self.engine.state, self.engine.running_entries)
            if share or progress.seconds_stalled:
                self.watch(progress)

        leader = self._find_leader(trials)
        self.loggers.log_runs(phase, trials, self.finished, self.saved)
        if not todo:
            return None
        runs = self.engine.run(
            self.plan.task, todo, watch, self.mode, phases_left, bool(self.finished), self.live.folder
        )
        for stack, outcomes in runs:
            if outcomes[0].error is None:  # failed trials run again when the race is resumed
                self.journal.finish(stack, outcomes)
            self.seconds, started = self.seconds + time.perf_counter() - started, time.perf_counter()
            self.journal.seconds = self.seconds
            self.finished |= {trial.key: outcome for trial, outcome in zip(stack, outcomes, strict=True)}
            leader = self._find_leader(trials)
            self.loggers.log_runs(phase, stack, self.finished, self.saved)
        self.loggers.log_runs(phase, trials, self.finished, self.saved)  # entries with a trial in common
        return (self.seconds - seconds_before) / len(todo)

    def describe(self, step: str) -> None:
        """Report a step before or after the training runs as progress."""
        self.watch(self.live.describe(step))

    def _find_leader(self, trials: Sequence[Trial]) -> str:
        """Return the name of the entry with the best result so far in a phase, for the progress display.

        In tuning it has the best validation metric, in final runs the best mean of the test metric. Only trials of full
        length count. The result is empty if the phase has no such trials of two entries.
        """
        longest = max(trial.epochs for trial in trials)
        results: dict[str, list[float]] = {}
        for trial in trials:
            outcome = self.finished.get(trial.key)
            if outcome is not None and outcome.diverged is None and trial.epochs == longest:
                metric = outcome.valid_metric if outcome.test_metric is None else outcome.test_metric
                results.setdefault(trial.entry_name, []).append(metric)
        if len(results) < 2:
            return ""
        best = max if self.plan.task.metric.higher_is_better else min
        summarize = fmean if trials[0].evaluates_test else best
        scores = {name: summarize(values) for name, values in results.items()}
        return best(scores, key=scores.__getitem__)

    def score(self, outcome: Outcome) -> Score:
        """Return the score of a tuning run for the tuner: smaller is better, infinite if the run diverged."""
        if outcome.diverged is not None:
            return Score(math.inf, math.inf)
        sign = -1 if self.plan.task.metric.higher_is_better else 1
        return Score(outcome.valid_loss, sign * outcome.valid_metric)

    def time_steps(self, finals: Finals) -> dict[str, float | None]:
        """Measure the duration of a step of each tuned optimizer in a plain training loop.

        Args:
            finals: final runs of each entry.

        Returns:
            Seconds of a step of each entry. None for custom training loops, for entries with failed runs, and if the
            measurement fails.
        """
        if not isinstance(self.plan.task, Task):
            return dict.fromkeys(finals)
        whole = {name: runs for name, runs in finals.items() if all(outcome.error is None for _, outcome in runs)}
        trials = {name: runs[0][0] for name, runs in whole.items()}
        known = self.journal.step_seconds
        missing = [trial for trial in trials.values() if trial.key not in known]
        if missing:
            self.describe("Measuring the time of an optimizer step")
            try:
                measured = self.engine.call(seconds_of_steps, self.plan.task, missing, self.mode.device)
            except Exception:  # the race is finished: a failed timing must not discard its result
                return dict.fromkeys(finals)
            known |= {trial.key: seconds for trial, seconds in zip(missing, measured, strict=True)}
            self.journal.step_seconds = known
        return {name: known[trials[name].key] if name in trials else None for name in finals}


def _tuning_run(request: Request, trial: Trial, outcome: Outcome, spread: bool) -> TuningRun:
    return TuningRun(
        point=dict(request.point),
        seed=trial.seed,
        first=request.seed == 0,
        spread=spread,
        start=outcome.start,
        loss=outcome.valid_loss,
        metric=outcome.valid_metric,
        diverged=outcome.diverged,
        error=outcome.error,
        failure=outcome.failure,
    )
