"""The command line: `gradprix race`, `gradprix list`, `gradprix new`, `gradprix report`, `gradprix export`."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gradprix import _app_command, _data_command
from gradprix._claims_command import claims
from gradprix._explain_command import explain
from gradprix._suite_command import suite

if TYPE_CHECKING:
    from gradprix.race import Result

WHO, MUCH, JUDGED, WHERE = (
    "Who races, and what is tuned",
    "How much of it",
    "How it is judged",
    "Where, and what is shown",
)

app = typer.Typer(
    name="gradprix",
    help="Which optimizer should train my network, and why?",
    epilog="Begin with: gradprix race digits",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(_data_command.app, name="data")


@contextlib.contextmanager
def usage(*mistakes: type[Exception]) -> Iterator[None]:
    """Turn what a user got wrong into one line on stderr and exit code 2; anything else is a defect and is shown."""
    try:
        yield
    except mistakes as error:
        typer.echo(f"gradprix: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("gradprix: stopped. What is finished is kept; the same command goes on from there.", err=True)
        raise typer.Exit(130) from None


def version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from gradprix import __version__

        typer.echo(f"gradprix {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Which optimizer should train my network, and why?"""


@app.command()
def race(
    task: Annotated[
        str,
        typer.Argument(
            help="A built-in task, see `gradprix list tasks`; or yours, `mine.py:task` or `package.module:task`: a "
            "task, a function that returns one, or a training loop. `gradprix new task.py` writes an example."
        ),
    ],
    optimizers: Annotated[
        str | None,
        typer.Option(
            help="Names with commas between, or `all`: see `gradprix list optimizers`. "
            "`mine.py:MyOpt` or `package:Class` is any class of torch.optim.Optimizer.",
            metavar="A,B|all",
            rich_help_panel=WHO,
        ),
    ] = None,
    bracket: Annotated[
        Literal["rules", "data"],
        typer.Option(help="`rules` races optimizers, `data` races one rule at three batch sizes.", rich_help_panel=WHO),
    ] = "rules",
    tune: Annotated[
        str | None,
        typer.Option(
            help="What to tune besides the learning rate: `beta1,momentum,weight_decay,batch_size,schedule` and the "
            "like. Each optimizer tunes those that it has.",
            metavar="A,B",
            rich_help_panel=WHO,
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            help="Tuning trials for each optimizer; the task's own number, or 19, by default.", rich_help_panel=MUCH
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Fresh seeds for the final, 6 or more; the task's own number, or 16, by default.", rich_help_panel=MUCH
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the training examples; the task's own by default.", rich_help_panel=MUCH),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Examples a step; the task's own by default.", rich_help_panel=MUCH)
    ] = None,
    schedule: Annotated[
        Literal["cosine", "linear", "warmup", "constant"] | None,
        typer.Option(help="How the learning rate goes; the task's own by default.", rich_help_panel=MUCH),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="The smallest difference that matters; the task's own by default.", rich_help_panel=JUDGED),
    ] = None,
    direction: Annotated[
        Literal["max", "min"] | None,
        typer.Option(help="Which way is better, for a training loop of your own.", rich_help_panel=JUDGED),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Compare the others with this one alone, and not with each other: fewer comparisons, so that each "
            "can tell smaller differences. To be chosen before anything is seen.",
            metavar="NAME",
            rich_help_panel=JUDGED,
        ),
    ] = None,
    preset: Annotated[
        Literal["small", "default", "large"] | None,
        typer.Option(help="Of a built-in task: seconds, minutes, or for a larger machine.", rich_help_panel=MUCH),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="A copy of a built-in task's data of your own: see `gradprix data --help`.", rich_help_panel=WHERE
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="About how long the race may take: what is raced, and how often, is chosen to fit.",
            rich_help_panel=MUCH,
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show what would be done, and stop.", rich_help_panel=MUCH)
    ] = False,
    seed: Annotated[int, typer.Option(help="Races with different numbers share no seed.", rich_help_panel=WHERE)] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Where the race is kept; `runs/TASK` by default.", rich_help_panel=WHERE)
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(help="How many train at once; as many as there are cores by default.", rich_help_panel=WHERE),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(help="How much the race may take, in GB; half of what is free by default.", rich_help_panel=WHERE),
    ] = None,
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile the networks: half a minute, for races that take many.", rich_help_panel=WHERE
        ),
    ] = False,
    explain_: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Train some final runs once more and look into them: why each placed where it did. About a minute.",
            rich_help_panel=WHERE,
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON and nothing else.", rich_help_panel=WHERE)
    ] = False,
) -> None:
    """Tune optimizers fairly, race them on fresh seeds, and say what the result is worth.

    Every optimizer gets the same number of trials, every run the same number of training examples.

    The same command again finishes what is missing and repeats nothing.
    """
    from gradprix.race import (
        JournalError,
        Local,
        MemoryTooSmallError,
        NoLookLeftError,
        TaskError,
        WorkerError,
        estimate,
        fitted,
        make_plan,
        measured,
        progress,
        run,
    )
    from gradprix.show import _console

    with usage(ValueError, TypeError):
        made = make_plan(
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
        )
        engine = Local(processes, memory)
    folder = out or Path("runs") / made.task.name
    with usage(ValueError, WorkerError):
        seconds = None
        if minutes is not None:
            made, seconds = fitted(made, minutes, engine, None if plan else folder)
        if plan and as_json:
            typer.echo(json.dumps(made.describe(), indent=1))
            return
        if plan:
            seconds = seconds or estimate(made, measured(made, engine))
            _console.console().print(_console.plan(made, seconds))
            return
        if not as_json and (sys.stderr.isatty() or minutes is not None):
            _console.console(stderr=True).print(_console.plan(made, seconds))
    with usage(JournalError, TaskError, WorkerError, MemoryTooSmallError, NoLookLeftError), progress() as watch:
        result = run(made, folder, engine, watch)
    if explain_:
        from gradprix.explain import why

        with usage(ValueError, JournalError, WorkerError):
            result = why(made, result, engine)
    if result.reused and not as_json:
        typer.echo(f"{result.reused:,} of {made.runs:,} networks had been trained before.", err=True)
    _finish(result, as_json)


@app.command("list")
def list_(
    what: Annotated[Literal["optimizers", "tasks"] | None, typer.Argument(help="Both when left out.")] = None,
    problem: Annotated[
        str | None,
        typer.Option("--for", help="Which optimizers to try first on a problem like this task.", metavar="TASK"),
    ] = None,
) -> None:
    """List the optimizers and tasks there are, or which optimizers to try first on a problem, with the evidence."""
    from gradprix.show import _console

    if problem is not None:
        with usage(ValueError):
            _console.console().print(_console.choices(problem))
        return
    if what != "tasks":
        _console.console().print(_console.optimizers())
    if what != "optimizers":
        _console.console().print(_console.tasks())


@app.command()
def new(
    file: Annotated[Path, typer.Argument(help="The file to write, such as task.py.")],
    loop: Annotated[bool, typer.Option("--loop", help="A training loop instead of a task.")] = False,
) -> None:
    """Write a working example of a task of your own, to change."""
    from importlib.resources import files

    text = files("gradprix.tasks").joinpath("templates", "loop.py" if loop else "task.py").read_text()
    with usage(ValueError, OSError):
        if file.suffix != ".py":
            raise ValueError(f"{file}: give a name that ends in .py.")
        if file.exists():
            raise ValueError(f"{file} is there already. Choose another name.")
        with open(file, "x", encoding="utf-8") as out:
            out.write(text.replace("FILE", file.name))
    what = f"{file}:train --direction max" if loop else str(file)
    typer.echo(f"Wrote {file}, which works as it is: gradprix race {what}")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Where a race is kept, such as runs/digits.")],
    png: Annotated[
        bool, typer.Option("--png", help="Write report.png, too: the ranking as a picture, for a README or a slide.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON and nothing else.")] = False,
) -> None:
    """Show a finished race again, and write its report anew."""
    from gradprix.race import JournalError, load

    with usage(JournalError, FileNotFoundError):
        result = load(folder)
    if png:
        from gradprix.show import write_picture

        with usage(ValueError, OSError):
            write_picture(result)
    _finish(result, as_json)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Where a race is kept, such as runs/digits.")],
    to: Annotated[Literal["csv", "parquet", "latex"], typer.Option(help="The form of the files.")] = "csv",
    out: Annotated[Path | None, typer.Option(help="Where to; the race's own folder by default.")] = None,
) -> None:
    """Write a finished race as tables: entries, verdict, trials, finals and curves."""
    from gradprix.race import JournalError, load

    with usage(JournalError, FileNotFoundError, ValueError, OSError):
        for file in load(folder).export(to, out):
            typer.echo(file)


app.command()(suite)
app.command("app")(_app_command.app)
app.command()(explain)
app.command()(claims)


def _finish(result: "Result", as_json: bool) -> None:
    """Write the report, then print the answer."""
    from gradprix.show import _console, write_report

    with usage(OSError):
        write_report(result)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=1, allow_nan=False))
    else:
        _console.console().print(_console.answer(result))


def main() -> None:
    """Run the command line."""
    app()
