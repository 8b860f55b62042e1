"""Error reporting of the command line."""

import contextlib
from collections.abc import Iterator

import typer

from . import _signals


@contextlib.contextmanager
def report_errors(*expected: type[Exception]) -> Iterator[None]:
    """Report the given exceptions in one line on stderr with exit code 2; others propagate with their traceback."""
    try:
        yield
    except expected as error:
        typer.echo(f"gradprix: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("gradprix: stopped. Finished runs are saved; run the same command to resume.", err=True)
        raise typer.Exit(_signals.exit_code()) from None
