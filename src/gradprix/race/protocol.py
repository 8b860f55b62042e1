"""Protocol of a race: tuning, final runs with interim analyses, and the record."""

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from gradprix.executors.executor import Executor
from gradprix.integrations.loggers import Logger, Loggers

from .analysis import analyse
from .journal import Journal
from .live_files import LiveFiles, Watch
from .plan import Plan
from .record_builder import make_record
from .reduced_budget import summarize_quarter
from .result import Result
from .resume import available_level, check_resume, make_comparisons
from .runner import Runner
from .setup import describe_setup


def run(
    plan: Plan,
    out: Path | None,
    engine: Executor,
    watch: Watch = lambda *_: None,
    loggers: Sequence[Logger] = (),
) -> Result:
    """Run a race, or resume it if it was interrupted.

    If the folder holds a race with another plan, identical trials of that race are reused.

    Args:
        plan: plan of the race.
        out: folder to save the race in; None does not save it.
        engine: executor of the training runs.
        watch: progress callback.
        loggers: loggers of the training runs and of the result.

    Raises:
        OtherRaceError: if the folder holds a race on another task or in another execution mode.
        NoAnalysisLeftError: if earlier interim analyses have spent the error rate of 5 %.
        JournalError: if the folder is not writable.
        TaskError: if the task fails, or an optimizer fails on it.
        WorkerError: if worker processes are killed repeatedly.
        EngineError: if a machine of a cluster cannot take part.
    """
    with Journal(out) as journal:
        return run_in_journal(plan, journal, engine, watch, loggers)


def run_in_journal(
    plan: Plan,
    journal: Journal,
    engine: Executor,
    watch: Watch = lambda *_: None,
    loggers: Sequence[Logger] = (),
) -> Result:
    """Run a race whose runs are saved in an open journal; see `run`."""
    out = journal.folder
    with LiveFiles(out) as live, Loggers(loggers, plan, out) as logs:
        analyses = check_resume(plan, journal)
        runner = Runner.start(plan, journal, engine, watch, logs, live)
        if out is not None:
            journal.setup = describe_setup(plan, journal.provenance)
        logs.start()
        tuned, tuning_runs = runner.tune()
        step_seconds: dict[str, float | None] = {}
        for seeds in plan.analysis_seeds:
            level = available_level(analyses, seeds, plan.seeds)
            if level is None:
                continue
            finals, quarter, seconds_per_run = runner.run_finals(tuned, seeds)
            step_seconds = step_seconds or runner.time_steps(finals)
            if (seeds, level) not in analyses:
                analyses.append((seeds, level))
            journal.interim_analyses, journal.comparisons = analyses, make_comparisons(plan)
            seen = analyses[: analyses.index((seeds, level)) + 1]
            runner.describe(f"Interim analysis after {seeds} seeds")
            analysis = analyse(plan, tuning_runs, tuned, finals, step_seconds, seen)
            if analysis.is_conclusive:
                break
        shortened, equal_time = runner.compare_in_equal_time(tuned, finals, analysis, step_seconds)
        reruns = runner.repeat_finals(finals, seconds_per_run)
        record = make_record(
            plan,
            runner.mode,
            tuning_runs,
            tuned,
            finals,
            analysis,
            cost=runner.cost([finals, quarter, shortened], step_seconds),
            interim_analyses=analyses,
            reruns=list(reruns.values()),
            shortened=[quarter, shortened],
            budget_sensitivity=summarize_quarter(plan, quarter, analysis),
            equal_time=equal_time,
        )
        diagnosis = journal.diagnosis
        if diagnosis is not None and diagnosis.identity[0] == plan.key:
            record = replace(record, diagnosis=diagnosis)
        journal.record = record
        result = Result(record, out, len(runner.reused))
        if loggers:
            runner.describe("Writing logs")
        logs.log_result(result)
    return result
