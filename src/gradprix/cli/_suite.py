"""Command `gradprix suite`: race the same optimizers on several tasks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gradprix.utils.streams import echo_json

from ._errors import report_errors
from ._options import Address, Cpus, EngineName, Gpus, Log, Memory, Processes
from ._suite_entry import compare
from ._workers import prepare_workers

if TYPE_CHECKING:
    from gradprix.race import Executor, Plan

PAGE, SUMMARY = "suite.html", "suite.json"


def suite(
    tasks: Annotated[
        str | None, typer.Option(help="Names separated by commas. Default: all built-in tasks.", metavar="A,B")
    ] = None,
    entry: Annotated[
        str | None,
        typer.Option(
            help="Tune and run only this optimizer, such as `mine.py:MyOpt`, and compare it with the published suite: "
            "its settings, and the final runs of its tuned optimizers, are part of the package.",
            metavar="NAME",
        ),
    ] = None,
    optimizers: Annotated[
        str | None,
        typer.Option(
            help="Optimizers on each task, separated by commas. Default: ten common optimizers.", metavar="A,B"
        ),
    ] = None,
    preset: Annotated[
        Literal["small", "default", "large"] | None,
        typer.Option(help="Size of the tasks: seconds, minutes, or for a larger machine."),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Tuning trials per optimizer. Default: each task's number.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Held-out final seeds. Default: each task's number.")] = None,
    seed: Annotated[int, typer.Option(help="Base random seed; suites with different base seeds share no seed.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Parent folder of the races' folders. Default: `runs/suite`; `runs/suite-NAME` for --entry."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the plan with its estimated time and stop.")] = False,
    engine: EngineName = "local",
    address: Address = None,
    processes: Processes = None,
    memory: Memory = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    log: Log = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the summary, as JSON.")] = False,
) -> None:
    """Race the same optimizers on several tasks, and report the regret of a single choice for all of them.

    With --entry, compare one optimizer with the tuned ones of the published suite, at the cost of its own runs.

    Run the same command to resume an interrupted suite; finished runs are not repeated.
    """
    prepare_workers()
    from gradprix.engines import make_engine
    from gradprix.integrations.loggers import make_loggers
    from gradprix.race import suite_plans

    with report_errors(ValueError, TypeError, ImportError):
        make_loggers(log)
        executor = make_engine(engine, address=address, processes=processes, memory=memory, cpus=cpus, gpus=gpus)
    if entry is not None:
        given = {"optimizers": optimizers, "preset": preset, "trials": trials, "seeds": seeds, "seed": seed or None}
        unused = [f"--{name}" for name, value in given.items() if value is not None]
        compare(entry, tasks, executor, out, unused=unused, show_plan=plan, as_json=as_json, log=log or ())
        return
    with report_errors(ValueError, TypeError, ImportError):
        plans = suite_plans(tasks, optimizers, preset=preset, trials=trials, seeds=seeds, seed=seed)
    if plan:
        _show_plans(plans, executor, as_json)
    else:
        _run_suite(plans, executor, out or Path("runs/suite"), as_json, log or ())


def _show_plans(plans: "Sequence[Plan]", engine: "Executor", as_json: bool) -> None:
    """Print the plan of each race of a suite, with its estimated duration."""
    from gradprix.race import WorkerError, estimate, measure_cost, progress
    from gradprix.race.progress_display import REPORT_AFTER
    from gradprix.show import terminal
    from gradprix.show.plans import summarize_suite_plan

    with report_errors(ValueError, WorkerError), progress(REPORT_AFTER) as watch:
        seconds = {plan.task.name: estimate(plan, measure_cost(plan, engine, watch)) for plan in plans}
    if as_json:
        echo_json([{**plan.description, "seconds": seconds[plan.task.name]} for plan in plans])
    else:
        terminal.console().print(summarize_suite_plan(plans, seconds, engine.place))


def _run_suite(plans: "Sequence[Plan]", engine: "Executor", out: Path, as_json: bool, log: Sequence[str]) -> None:
    """Run the races of a suite, write their reports and the summary of the suite, and print the summary."""
    from gradprix.race import WorkerError, load, progress
    from gradprix.race import suite as run_suite
    from gradprix.race.record_json import to_json
    from gradprix.show import suite_page, terminal, write_report
    from gradprix.text.suite import format_suite
    from gradprix.utils.files import write_atomically

    with report_errors(ValueError, WorkerError, OSError), progress() as watch:
        result = run_suite(plans, out, engine, watch, log)
        summary = {"text": format_suite(result), **to_json(result)}
        for name in result.tasks:
            write_report(load(out / name))
        write_atomically(out / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode(), 0o644)
        write_atomically(out / PAGE, suite_page(result).encode(errors="replace"), 0o644)
    if as_json:
        echo_json(summary)
    else:
        terminal.console().print(terminal.suite(result, out / PAGE))
