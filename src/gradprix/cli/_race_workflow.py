"""Steps of the command `gradprix race`.

The command imports this module only when it runs, because torch, which this module imports, is slow to import.
"""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gradprix import show
from gradprix.integrations.loggers import Logger
from gradprix.race import (
    EngineError,
    Executor,
    JournalError,
    LiveProgress,
    MemoryTooSmallError,
    NoAnalysisLeftError,
    Plan,
    Result,
    TaskError,
    TooLittleTimeError,
    Watch,
    WorkerError,
    estimate,
    fit_to_budget,
    measure_cost,
    progress,
    run,
)
from gradprix.race.expensive_entries import report_expensive_entries
from gradprix.race.progress_display import REPORT_AFTER
from gradprix.show import terminal
from gradprix.show.plans import summarize_plan
from gradprix.text.alternatives import format_commands
from gradprix.utils.streams import echo_json, warn

from ._errors import report_errors


def show_plan(
    plan: Plan,
    task: str,
    minutes: float | None,
    engine: Executor,
    as_json: bool,
    summarize: Callable[..., Any] = summarize_plan,
) -> None:
    """Print a plan without running it.

    Args:
        plan: plan to print.
        task: the task as it is given on the command line.
        minutes: time budget, to which the plan is reduced first; None if there is none.
        engine: executor, which measures the cost of training steps.
        as_json: print JSON. Without a time budget, the duration is then not estimated.
        summarize: function that formats the plan for the terminal; see `terminal.plan`.
    """
    seconds, at_least = None, False
    with report_errors(ValueError, WorkerError), progress(REPORT_AFTER) as watch:
        _load_examples(plan, watch)
        if minutes is not None:
            plan, seconds = _fit_plan(plan, task, minutes, engine, None, watch)
        elif not as_json:
            cost = measure_cost(plan, engine, watch)
            seconds, at_least = estimate(plan, cost), cost.at_least
            report_expensive_entries(plan, cost)
    if as_json:
        echo_json(plan.description)
    else:
        terminal.console().print(summarize(plan, seconds, engine.place, at_least))


def run_race(
    plan: Plan,
    task: str,
    minutes: float | None,
    engine: Executor,
    out: Path | None,
    explain: bool,
    as_json: bool,
    loggers: Sequence[Logger] = (),
) -> None:
    """Run a race and show its result.

    Args:
        plan: plan of the race.
        task: the task as it is given on the command line.
        minutes: time budget, to which the plan is reduced first; None if there is none.
        engine: executor of the training runs.
        out: folder of the race; `runs/TASK` if None.
        explain: diagnose the final runs.
        as_json: print the result as JSON.
        loggers: loggers of the training runs.
    """
    # The file system's encoding may not represent all characters of the name.
    folder = out or Path("runs") / os.fsdecode(plan.task.name.encode())
    seconds = None
    with report_errors(ValueError, WorkerError), progress(None if minutes is None else REPORT_AFTER) as watch:
        _load_examples(plan, watch)
        if minutes is not None:
            plan, seconds = _fit_plan(plan, task, minutes, engine, folder, watch)
    if not as_json and (sys.stderr.isatty() or minutes is not None):
        terminal.console(stderr=True).print(summarize_plan(plan, seconds, engine.place), "")
    threading.Thread(target=lambda: show.write_report, daemon=True).start()  # imports matplotlib while workers start
    with (
        report_errors(EngineError, JournalError, TaskError, WorkerError, MemoryTooSmallError, NoAnalysisLeftError),
        progress() as watch,
    ):
        result = run(plan, folder, engine, watch, loggers)
    if explain:
        result = _explain_result(plan, result, engine)
    if result.reused and not as_json:
        warn(f"{result.reused:,} of {plan.runs:,} training runs were already finished.")
    show_result(result, as_json)


def show_result(result: Result, as_json: bool) -> None:
    """Print the answer of a race, then write its report; or write the report, then print the whole result as JSON."""
    if not as_json:
        terminal.console().print(terminal.answer(result))
    with report_errors(OSError):
        show.write_report(result)
    if as_json:
        echo_json(result.to_dict())


def _fit_plan(
    plan: Plan, task: str, minutes: float, engine: Executor, folder: Path | None, watch: Watch
) -> tuple[Plan, float]:
    """Reduce a plan to a time budget; see `fit_to_budget`.

    Raises:
        ValueError: if not even the smallest plan fits, with commands that can be run instead.
    """
    try:
        return fit_to_budget(plan, minutes, engine, folder, watch)
    except TooLittleTimeError as error:
        commands = format_commands(error.alternatives, task, plan.task.epochs)
        raise ValueError("\n".join(filter(None, [str(error), commands]))) from None


def _load_examples(plan: Plan, watch: Watch) -> None:
    """Load the data of the task, which is otherwise loaded on first use, and show this as progress."""
    watch(LiveProgress(f"Loading {plan.task.name!r}"))
    assert plan.task.fingerprint


def _explain_result(plan: Plan, result: Result, engine: Executor) -> Result:
    """Return the result with a diagnosis of its final runs.

    If the diagnosis fails, the error is reported on stderr and the result is returned unchanged.
    """
    from gradprix.explain import why

    if sys.stderr.isatty():
        warn("Retraining and diagnosing eight final runs of each optimizer ...")
    try:
        return why(plan, result, engine)
    except Exception as error:  # the race is finished: a failed diagnosis must not discard its result
        what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        warn(f"gradprix: the race is saved, but its final runs could not be diagnosed: {what}")
        return result
