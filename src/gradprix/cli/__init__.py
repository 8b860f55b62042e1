"""Command-line interface: the Typer application and its commands."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from gradprix.utils import streams
from gradprix.utils.streams import echo

from . import _app, _data, _signals, _workers
from ._claims import claims
from ._commands import Command
from ._compare import compare
from ._errors import report_errors
from ._examples import format_examples
from ._explain import explain
from ._export import export
from ._race import race
from ._suite import suite
from ._tune import tune
from ._verify import verify

app = typer.Typer(
    name="gradprix",
    help="Use, race and explain optimizers: which one should train your model, and why?",
    epilog=format_examples("gradprix"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(_data.app, name="data")


def version(is_set: bool) -> None:
    """Print the version and exit, if the option `--version` is set."""
    if is_set:
        from gradprix import __version__

        echo(f"gradprix {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Use, race and explain optimizers: which one should train your model, and why?"""


app.command(cls=Command, epilog=format_examples("race"))(race)
app.command(cls=Command, epilog=format_examples("tune"))(tune)


@app.command("list", cls=Command, epilog=format_examples("list"))
def list_(
    what: Annotated[Literal["optimizers", "tasks"] | None, typer.Argument(help="Default: both.")] = None,
    problem: Annotated[
        str | None,
        typer.Option("--for", help="Recommend optimizers for a problem similar to this task.", metavar="TASK"),
    ] = None,
) -> None:
    """List the optimizers and tasks, or recommend optimizers for a kind of problem, with the evidence."""
    from gradprix.show import terminal

    if problem is not None:
        with report_errors(ValueError):
            terminal.console().print(terminal.choices(problem))
        return
    if what != "tasks":
        terminal.console().print(terminal.optimizers())
    if what != "optimizers":
        terminal.console().print(terminal.tasks())


@app.command(cls=Command, epilog=format_examples("new"))
def new(
    file: Annotated[Path, typer.Argument(help="The file to write, such as task.py.")],
    loop: Annotated[bool, typer.Option("--loop", help="Write a training loop instead of a task.")] = False,
) -> None:
    """Write a working example of a task, as a template for your own."""
    from importlib.resources import files

    text = files("gradprix").joinpath("tasks", "templates", "loop.py" if loop else "task.py").read_text("utf-8")
    with report_errors(ValueError, OSError):
        if file.suffix != ".py":
            raise ValueError(f"{file}: the name must end in .py.")
        if file.exists():
            raise ValueError(f"{file} already exists. Choose another name.")
        with open(file, "x", encoding="utf-8") as out:
            out.write(text.replace("FILE", os.fsencode(file.name).decode(errors="replace")))
    what = f"{file}:train --direction max" if loop else str(file)
    echo(f"Wrote a working example to {file}. To race it: gradprix race {what}")


@app.command(cls=Command, epilog=format_examples("report"))
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of the race, such as runs/digits, or its bundle.")],
    png: Annotated[
        bool, typer.Option("--png", help="Also write report.png: the ranking as an image, for a README or a slide.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the result, as JSON.")] = False,
) -> None:
    """Show a finished race again, and rewrite its report."""
    from gradprix.race import JournalError, load

    from ._race_workflow import show_result

    with report_errors(JournalError, FileNotFoundError):
        result = load(folder)
    if png:
        from gradprix.show import write_picture

        with report_errors(ValueError, OSError):
            write_picture(result)
    show_result(result, as_json)


app.command(cls=Command, epilog=format_examples("export"))(export)
app.command(cls=Command, epilog=format_examples("verify"))(verify)
app.command(cls=Command, epilog=format_examples("compare"))(compare)
app.command(cls=Command, epilog=format_examples("suite"))(suite)
app.command("app", cls=Command, epilog=format_examples("app"))(_app.app)
app.command(cls=Command, epilog=format_examples("explain"))(explain)
app.command(cls=Command, epilog=format_examples("claims"))(claims)


def main() -> None:
    """Run the command line, and exit with its exit code. This is the entry point of the program `gradprix`."""
    streams.prepare()
    _signals.listen()
    _workers.allow_fork()
    try:
        app()
        code: int | str | None = 0
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:  # received outside of a command
        code = 130
    left = streams.close()
    _signals.end_soon(_signals.exit_code(code if isinstance(code, int) else 1) if code else left)
