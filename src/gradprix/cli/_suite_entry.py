"""Option `--entry` of `gradprix suite`: compare one optimizer with the published suite."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradprix.utils.streams import echo_json

from ._errors import report_errors

if TYPE_CHECKING:
    from gradprix.race import Executor, SuiteEntryPlan

PAGE, SUMMARY = "suite-entry.html", "suite-entry.json"


def compare(
    entry: str,
    tasks: str | None,
    engine: "Executor",
    out: Path | None,
    *,
    unused: Sequence[str],
    show_plan: bool,
    as_json: bool,
    log: Sequence[str],
) -> None:
    """Compare one optimizer with the published suite, or show the plan.

    Args:
        entry: name or location of the optimizer.
        tasks: names of tasks, separated by commas; None means all.
        engine: executor of the training runs.
        out: parent folder of the runs; None means `runs/suite-NAME`.
        unused: options that were given, and that the published suite determines.
        show_plan: only show the plan, with its estimated duration.
        as_json: print JSON.
        log: names of loggers.
    """
    from gradprix.race import suite_entry_plans

    with report_errors(ValueError, TypeError, ImportError):
        if unused:
            raise ValueError(
                "with --entry, optimizers and settings are those of the published suite: leave out "
                f"{', '.join(unused)}."
            )
        plans = suite_entry_plans(entry, tasks)
    if show_plan:
        _show_plans(plans, engine, as_json)
    else:
        _run(plans, engine, out, as_json, log)


def _show_plans(plans: "Sequence[SuiteEntryPlan]", engine: "Executor", as_json: bool) -> None:
    """Print the number of training runs on each task, with their estimated duration."""
    from gradprix.race import WorkerError, estimate, measure_cost, progress
    from gradprix.race.progress_display import REPORT_AFTER
    from gradprix.show import terminal
    from gradprix.show.plans import summarize_suite_entry_plan

    with report_errors(ValueError, WorkerError), progress(REPORT_AFTER) as watch:
        seconds = {plan.task.name: estimate(plan, measure_cost(plan, engine, watch)) for plan in plans}
    if as_json:
        rows = [{**plan.description, "runs": plan.runs, "seconds": seconds[plan.task.name]} for plan in plans]
        echo_json([{**row, "published_runs": plan.published.runs} for row, plan in zip(rows, plans, strict=True)])
    else:
        terminal.console().print(summarize_suite_entry_plan(plans, seconds, engine.place))


def _run(
    plans: "Sequence[SuiteEntryPlan]", engine: "Executor", out: Path | None, as_json: bool, log: Sequence[str]
) -> None:
    """Run the plans, write the page and the summary, and print the result."""
    from gradprix.race import WorkerError, progress, run_suite_entry
    from gradprix.show import suite_entry_answer, suite_entry_page
    from gradprix.show.terminal import console
    from gradprix.utils.files import write_atomically

    # The file system's encoding may not represent all characters of the name.
    folder = out or Path("runs", f"suite-{os.fsdecode(plans[0].entry.name.encode())}")
    with report_errors(ValueError, WorkerError, OSError), progress() as watch:
        result = run_suite_entry(plans, folder, engine, watch, log)
        summary = result.to_dict()
        write_atomically(folder / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode(), 0o644)
        write_atomically(folder / PAGE, suite_entry_page(result.record).encode(errors="replace"), 0o644)
    if as_json:
        echo_json(summary)
    else:
        console().print(suite_entry_answer(result.record, folder / PAGE))
