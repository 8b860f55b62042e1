"""Error reporting of the command line."""

import contextlib
from collections.abc import Iterator

import typer

from . import _signals


@contextlib.contextmanager
def report_errors(*expected: type[Exception]) -> Iterator[None]:
    """Context manager that reports expected exceptions as a message on stderr and exits with code 2.

    An interrupt (`KeyboardInterrupt`) is reported as well, and exits with the code of the signal. Other exceptions
    propagate, so that the user sees their traceback.

    Args:
        expected: types of the expected exceptions.
    """
    try:
        yield
    except expected as error:
        typer.echo(f"gradprix: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("gradprix: stopped. Finished runs are saved; run the same command to resume.", err=True)
        raise typer.Exit(_signals.exit_code()) from None
