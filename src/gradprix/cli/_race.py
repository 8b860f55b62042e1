"""Command `gradprix race`: race optimizers on a task."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gradprix.utils.streams import echo_json

from ._options import WHERE, Address, Cpus, EngineName, Gpus, Memory, Processes

if TYPE_CHECKING:
    from gradprix.race import Engine, Plan, Result

OPTIMIZERS, BUDGET, EVALUATION = "Optimizers and tuning", "Budget", "Evaluation"


def race(
    task: Annotated[
        str,
        typer.Argument(
            help="A built-in task, see `gradprix list tasks`, or your own, `mine.py:task` or `package.module:task`: a "
            "task, a function that returns one, or a training loop. `gradprix new task.py` writes an example."
        ),
    ],
    optimizers: Annotated[
        str | None,
        typer.Option(
            help="Names separated by commas, or `all`: see `gradprix list optimizers`. "
            "`mine.py:MyOpt` or `package:Class` is any subclass of torch.optim.Optimizer.",
            metavar="A,B|all",
            rich_help_panel=OPTIMIZERS,
        ),
    ] = None,
    bracket: Annotated[
        Literal["rules", "data"],
        typer.Option(
            help="`rules` races optimizers, `data` races one rule at three batch sizes.", rich_help_panel=OPTIMIZERS
        ),
    ] = "rules",
    tune: Annotated[
        str | None,
        typer.Option(
            help="Hyperparameters to tune besides the learning rate, such as "
            "`beta1,momentum,weight_decay,batch_size,schedule`. Each optimizer tunes those that it has.",
            metavar="A,B",
            rich_help_panel=OPTIMIZERS,
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help="Tuning trials per optimizer; the task's own number, or 19, by default.", rich_help_panel=BUDGET
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Held-out final seeds, 6 or more; the task's own number, or 16, by default.", rich_help_panel=BUDGET
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs per run; the task's own by default.", rich_help_panel=BUDGET),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Batch size; the task's own by default.", rich_help_panel=BUDGET)
    ] = None,
    schedule: Annotated[
        Literal["cosine", "linear", "warmup", "constant"] | None,
        typer.Option(help="Learning-rate schedule; the task's own by default.", rich_help_panel=BUDGET),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            help="The smallest difference that matters; the task's own by default.", rich_help_panel=EVALUATION
        ),
    ] = None,
    direction: Annotated[
        Literal["max", "min"] | None,
        typer.Option(help="Direction of the metric of your own training loop.", rich_help_panel=EVALUATION),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Compare all others with this optimizer, instead of all pairs: with fewer comparisons, each can "
            "detect smaller differences. Choose it before you see any result.",
            metavar="NAME",
            rich_help_panel=EVALUATION,
        ),
    ] = None,
    preset: Annotated[
        Literal["small", "default", "large"] | None,
        typer.Option(
            help="Size of a built-in task: seconds, minutes, or for a larger machine.", rich_help_panel=BUDGET
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Your own copy of a built-in task's data: see `gradprix data --help`.", rich_help_panel=WHERE
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Time budget: optimizers, trials, seeds and epochs are reduced to fit.",
            rich_help_panel=BUDGET,
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the plan and stop.", rich_help_panel=BUDGET)] = False,
    seed: Annotated[
        int,
        typer.Option(help="Base random seed; races with different base seeds share no seed.", rich_help_panel=WHERE),
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the race; `runs/TASK` by default.", rich_help_panel=WHERE)
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="`cpu`, `cuda`, `cuda:1` or another torch device; by default a GPU if there is one and it is faster.",
            rich_help_panel=WHERE,
        ),
    ] = None,
    engine: EngineName = "local",
    address: Address = None,
    processes: Processes = None,
    memory: Memory = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the models: half a minute, for races that take many.",
            rich_help_panel=WHERE,
        ),
    ] = False,
    explain_: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Retrain and diagnose five final runs of each optimizer, for about a minute: why each placed "
            "where it did.",
            rich_help_panel=WHERE,
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print only the result, as JSON.", rich_help_panel=WHERE)
    ] = False,
) -> None:
    """Tune optimizers fairly, race them on held-out seeds, and report a verdict with its uncertainty.

    Every optimizer gets the same number of trials, every run the same number of training examples.

    Run the same command to resume an interrupted race; finished runs are not repeated.
    """
    from gradprix import engines
    from gradprix.race import (
        EngineError,
        JournalError,
        MemoryTooSmallError,
        NoAnalysisLeftError,
        TaskError,
        WorkerError,
        estimate,
        fitted,
        make_plan,
        measured,
        progress,
        run,
    )
    from gradprix.race.progress_display import PATIENCE
    from gradprix.show import terminal

    from . import usage

    with usage(ValueError, TypeError):
        configured = make_plan(
            task,
            optimizers,
            bracket=bracket,
            tune=tune,
            trials=trials,
            seeds=seeds,
            epochs=epochs,
            batch_size=batch_size,
            schedule=schedule,
            margin=margin,
            direction=direction,
            baseline=baseline,
            preset=preset,
            data=data,
            seed=seed,
            compile=compile_,
            device=device,
        )
        where = engines.named(engine, address=address, processes=processes, memory=memory, cpus=cpus, gpus=gpus)
        if explain_:
            from gradprix.explain import explainable

            explainable(configured)
    # A name that the file system's encoding can represent.
    folder = out or Path("runs") / os.fsdecode(configured.task.name.encode())
    with usage(ValueError, WorkerError):
        seconds, at_least = None, False
        with progress(PATIENCE if plan or minutes is not None else None) as watch:
            watch(f"Loading {configured.task.name!r}", 0.0, 0)
            assert configured.task.fingerprint  # loads the examples
            if minutes is not None:
                configured, seconds = fitted(configured, minutes, where, None if plan else folder, watch)
            elif plan and not as_json:
                cost = measured(configured, where, watch)
                seconds, at_least = estimate(configured, cost), cost.at_least
        if plan and as_json:
            echo_json(configured.describe())
            return
        if plan:
            terminal.console().print(terminal.plan(configured, seconds, where.place, at_least))
            return
        if not as_json and (sys.stderr.isatty() or minutes is not None):
            terminal.console(stderr=True).print(terminal.plan(configured, seconds, where.place))
    with (
        usage(EngineError, JournalError, TaskError, WorkerError, MemoryTooSmallError, NoAnalysisLeftError),
        progress() as watch,
    ):
        result = run(configured, folder, where, watch)
    if explain_:
        result = _explained(configured, result, where)
    if result.reused and not as_json:
        typer.echo(f"{result.reused:,} of {configured.runs:,} networks had been trained before.", err=True)
    finish(result, as_json)


def _explained(plan: "Plan", result: "Result", engine: "Engine") -> "Result":
    """Return the result with a diagnosis of its final runs; if that fails, report the error and return it unchanged."""
    from gradprix.explain import why

    if sys.stderr.isatty():
        typer.echo("Training five final runs of each once more, and looking into them ...", err=True)
    try:
        return why(plan, result, engine)
    except Exception as error:  # the race is finished: a failed diagnosis must not discard its result
        what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        typer.echo(f"gradprix: the race is kept, but its networks could not be looked into: {what}", err=True)
        return result


def finish(result: "Result", as_json: bool) -> None:
    """Write the report, then print the answer."""
    from gradprix.show import terminal, write_report

    from . import usage

    with usage(OSError):
        write_report(result)
    if as_json:
        echo_json(result.to_dict())
    else:
        terminal.console().print(terminal.answer(result))
