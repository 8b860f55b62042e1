"""Steps of the command `gradprix race`, imported when it runs because they import torch."""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from gradprix import show
from gradprix.race import (
    EngineError,
    Executor,
    JournalError,
    MemoryTooSmallError,
    NoAnalysisLeftError,
    Plan,
    Result,
    TaskError,
    Watch,
    WorkerError,
    estimate,
    fit_to_budget,
    measure_cost,
    progress,
    run,
)
from gradprix.race.progress_display import REPORT_AFTER
from gradprix.show import terminal
from gradprix.utils.streams import echo_json

from ._errors import report_errors


def show_plan(
    plan: Plan, minutes: float | None, engine: Executor, as_json: bool, summarize: Callable[..., Any] = terminal.plan
) -> None:
    """Print the plan that fits the time budget; unless the output is JSON, with its estimated duration."""
    seconds, at_least = None, False
    with report_errors(ValueError, WorkerError), progress(REPORT_AFTER) as watch:
        _load_examples(plan, watch)
        if minutes is not None:
            plan, seconds = fit_to_budget(plan, minutes, engine, None, watch)
        elif not as_json:
            cost = measure_cost(plan, engine, watch)
            seconds, at_least = estimate(plan, cost), cost.at_least
    if as_json:
        echo_json(plan.description)
    else:
        terminal.console().print(summarize(plan, seconds, engine.place, at_least))


def run_race(
    plan: Plan, minutes: float | None, engine: Executor, out: Path | None, explain: bool, as_json: bool
) -> None:
    """Run a race that fits the time budget, and show its result."""
    # A name that the file system's encoding can represent.
    folder = out or Path("runs") / os.fsdecode(plan.task.name.encode())
    seconds = None
    with report_errors(ValueError, WorkerError), progress(None if minutes is None else REPORT_AFTER) as watch:
        _load_examples(plan, watch)
        if minutes is not None:
            plan, seconds = fit_to_budget(plan, minutes, engine, folder, watch)
    if not as_json and (sys.stderr.isatty() or minutes is not None):
        terminal.console(stderr=True).print(terminal.plan(plan, seconds, engine.place))
    threading.Thread(target=lambda: show.write_report, daemon=True).start()  # imports plotly while workers start
    with (
        report_errors(EngineError, JournalError, TaskError, WorkerError, MemoryTooSmallError, NoAnalysisLeftError),
        progress() as watch,
    ):
        result = run(plan, folder, engine, watch)
    if explain:
        result = _explain_result(plan, result, engine)
    if result.reused and not as_json:
        typer.echo(f"{result.reused:,} of {plan.runs:,} training runs were already finished.", err=True)
    show_result(result, as_json)


def show_result(result: Result, as_json: bool) -> None:
    """Write the report, then print the answer."""
    with report_errors(OSError):
        show.write_report(result)
    if as_json:
        echo_json(result.to_dict())
    else:
        terminal.console().print(terminal.answer(result))


def _load_examples(plan: Plan, watch: Watch) -> None:
    watch(f"Loading {plan.task.name!r}", 0.0, 0)
    assert plan.task.fingerprint


def _explain_result(plan: Plan, result: Result, engine: Executor) -> Result:
    """Return the result with a diagnosis of its final runs; if that fails, report the error and return it unchanged."""
    from gradprix.explain import why

    if sys.stderr.isatty():
        typer.echo("Retraining and diagnosing five final runs of each optimizer ...", err=True)
    try:
        return why(plan, result, engine)
    except Exception as error:  # the race is finished: a failed diagnosis must not discard its result
        what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        typer.echo(f"gradprix: the race is saved, but its final runs could not be diagnosed: {what}", err=True)
        return result
