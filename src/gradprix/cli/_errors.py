"""Error reporting of the command line."""

import contextlib
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterator
from typing import Any

import typer

from gradprix.utils.streams import warn

WIDEST = 100
"""Maximum width of a message in a terminal, in columns, as of all other output."""


@contextlib.contextmanager
def report_errors(*expected: type[Exception]) -> Iterator[None]:
    """Context manager that reports expected exceptions as a message on stderr and exits with code 2.

    Warnings of gradprix are reported in the same form, without the location of their code. Other exceptions propagate,
    so that the user sees their traceback.

    Args:
        expected: types of the expected exceptions.
    """
    show = warnings.showwarning

    def report(message: Warning | str, category: type[Warning], *location: Any) -> None:
        if category.__module__.startswith("gradprix."):
            warn(_wrap(f"gradprix: {message}"))
        else:
            show(message, category, *location)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = report  # type: ignore[assignment]
            yield
    except expected as error:
        warn(_wrap(f"gradprix: {error}"))
        raise typer.Exit(2) from None


def _wrap(message: str) -> str:
    """Break the lines of a message between words, for a terminal. Otherwise a message stays one line, for programs."""
    if not sys.stderr.isatty():
        return message
    width = min(shutil.get_terminal_size().columns, WIDEST)
    lines = (textwrap.wrap(line, width, break_on_hyphens=False, break_long_words=False) for line in message.split("\n"))
    return "\n".join(line for wrapped in lines for line in wrapped or [""])
