"""Execution of the plan of a race. Outcomes in the journal are reused, and the remaining trials are run."""

import math
import time
from itertools import chain
from pathlib import Path

from msgspec.structs import replace

from gradprix.executors.executor import Executor
from gradprix.tasks import Task
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trial import Outcome, Trial
from gradprix.tuning.tuner import PhaseKind, Request, Score, TuningResult

from .analysis import analyse
from .efficiency import seconds_of_steps
from .journal import Journal
from .plan import Plan
from .progress_display import Watch
from .record_builder import make_record
from .rerun import MIN_TIMEOUT, REPEATED_SHARE, prepare, repeat
from .result import Result
from .resume import available_level, check_resume, choose_execution_mode, make_comparisons
from .run_records import Finals, Rerun, TuningRun


def run(plan: Plan, out: Path | None, engine: Executor, watch: Watch = lambda *_: None) -> Result:
    """Run a race, or resume it if it was interrupted.

    If the folder holds a race with another plan, identical trials of that race are reused.

    Args:
        plan: plan of the race.
        out: folder to save the race in; None does not save it.
        engine: executor of the training runs.
        watch: progress callback.

    Raises:
        OtherRaceError: if the folder holds a race on another task or in another execution mode.
        NoAnalysisLeftError: if earlier interim analyses have spent the error rate of 5 %.
        JournalError: if the folder is not writable.
        TaskError: if the task fails, or an optimizer fails on it.
        WorkerError: if worker processes are killed repeatedly.
        EngineError: if a machine of a cluster cannot take part.
    """
    with Journal(out) as journal:
        analyses = check_resume(plan, journal)
        runner = Runner.start(plan, journal, engine, watch)
        tuned, tuning_runs = runner.tune()
        step_seconds: dict[str, float | None] = {}
        for seeds in plan.analysis_seeds:
            level = available_level(analyses, seeds, plan.seeds)
            if level is None:
                continue
            finals, seconds_per_run = runner.run_finals(tuned, seeds)
            step_seconds = step_seconds or runner.time_steps(finals)
            if (seeds, level) not in analyses:
                analyses.append((seeds, level))
            journal.interim_analyses, journal.comparisons = analyses, make_comparisons(plan)
            seen = analyses[: analyses.index((seeds, level)) + 1]
            analysis = analyse(plan, tuning_runs, tuned, finals, step_seconds, seen)
            if analysis.is_conclusive:
                break
        reruns = runner.repeat_finals(finals, seconds_per_run)
        record = make_record(
            plan,
            runner.mode,
            tuning_runs,
            tuned,
            finals,
            analysis,
            seconds=round(runner.seconds, 2),
            step_seconds=step_seconds,
            interim_analyses=analyses,
            reruns=list(reruns.values()),
        )
        diagnosis = journal.diagnosis
        if diagnosis is not None and diagnosis.identity[0] == plan.key:
            record = replace(record, diagnosis=diagnosis)
        journal.record = record
    return Result(record, out, len(runner.reused))


class Runner:
    """Race in progress: runs trials, and collects their outcomes.

    Attributes:
        finished: outcome of each finished trial, by the key of the trial.
        saved: keys of the trials whose outcomes were read from the journal at the start.
        reused: keys of the trials of this race whose outcomes were reused from the journal.
        seconds: training time of the race, including that of earlier calls.
    """

    def __init__(self, plan: Plan, mode: ExecutionMode, journal: Journal, engine: Executor, watch: Watch) -> None:
        self.plan, self.mode, self.journal, self.engine, self.watch = plan, mode, journal, engine, watch
        self.finished = journal.finished()
        self.saved = set(self.finished)
        self.reused: set[str] = set()
        self.seconds = journal.seconds

    @classmethod
    def start(cls, plan: Plan, journal: Journal, engine: Executor, watch: Watch) -> "Runner":
        """Choose the execution mode of a race, write it and the plan to the journal, and read the finished trials."""
        mode = choose_execution_mode(plan, journal, engine, watch)
        journal.provenance = engine.describe_provenance(plan, mode.device)
        journal.write("plan", plan.description)
        journal.mode = mode
        return cls(plan, mode, journal, engine, watch)

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

    def run_finals(self, tuned: dict[str, TuningResult], seeds: int) -> tuple[Finals, float]:
        """Run every entry with its tuned values on held-out seeds.

        Args:
            tuned: tuning result of each entry.
            seeds: number of final seeds. A later call with a larger number reuses the runs of the earlier call.

        Returns:
            The final runs of each entry, and the approximate duration of a run in seconds.
        """
        trials = {
            entry.name: [self.plan.final_trial(entry, dict(tuned[entry.name].point), seed) for seed in range(seeds)]
            for entry in self.plan.entries
        }
        return self.run_final_trials(trials)

    def run_final_trials(self, trials: dict[str, list[Trial]]) -> tuple[Finals, float]:
        """Run final trials; see `run_finals`.

        Args:
            trials: trials of each entry, or of each setting if one optimizer is run at several settings.
        """
        tuning_count = self.plan.trials * len(self.plan.entries)
        seconds = self.run_trials("final", list(chain(*trials.values())), tuning_count, phases_left=0)
        finals = {name: [(trial, self.finished[trial.key]) for trial in final] for name, final in trials.items()}
        return finals, self.seconds / tuning_count if seconds is None else seconds

    def repeat_finals(self, finals: Finals, seconds_per_run: float) -> dict[str, Rerun]:
        """Repeat some final runs in new processes, to detect user code that carries over state between runs.

        Args:
            finals: final runs of each entry.
            seconds_per_run: approximate duration of a run in seconds.

        Returns:
            The repeated runs, by the key of the trial.
        """
        seconds, patience = seconds_per_run * self.engine.workers, max(MIN_TIMEOUT, REPEATED_SHARE * self.seconds)
        reruns = repeat(self.plan, self.mode, self.engine, finals, seconds, patience, self.journal.reruns)
        self.journal.reruns = reruns
        return reruns

    def run_trials(self, phase: str, trials: list[Trial], runs_before: int, phases_left: int) -> float | None:
        """Run those trials that are not finished, and save each outcome as soon as it is known.

        Args:
            phase: name of the phase, for the progress display.
            trials: all trials of the phase.
            runs_before: number of training runs in earlier phases.
            phases_left: number of tuning phases that are not finished, including this one.

        Returns:
            Seconds per trial, or None if all trials were finished before.
        """
        self.reused |= {trial.key for trial in trials} & self.saved
        todo = list({trial.key: trial for trial in trials if trial.key not in self.finished}.values())

        def watch(share: float) -> None:
            done = len(trials) - len(todo) + share
            self.watch(f"{phase}{self.engine.state}", runs_before + done, self.plan.runs)

        watch(0.0)
        if not todo:
            return None
        seconds_before, started = self.seconds, time.perf_counter()
        runs = self.engine.run(self.plan.task, todo, watch, self.mode, phases_left, bool(self.finished))
        for stack, outcomes in runs:
            if outcomes[0].error is None:  # failed trials run again when the race is resumed
                self.journal.finish(stack, outcomes)
            self.seconds, started = self.seconds + time.perf_counter() - started, time.perf_counter()
            self.journal.seconds = self.seconds
            self.finished |= {trial.key: outcome for trial, outcome in zip(stack, outcomes, strict=True)}
        return (self.seconds - seconds_before) / len(todo)

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
            try:
                measured = self.engine.call(seconds_of_steps, self.plan.task, missing, self.mode.device)
            except Exception:  # the race is finished: a failed timing must not discard its result
                return dict.fromkeys(finals)
            known |= {trial.key: seconds for trial, seconds in zip(missing, measured, strict=True)}
            self.journal.step_seconds = known
        return {name: known[trials[name].key] if name in trials else None for name in finals}


def _tuning_run(request: Request, trial: Trial, outcome: Outcome, spread: bool) -> TuningRun:
    """Return the record of a tuning run; `spread` is True in the first phase of tuning."""
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
