"""Base class of the commands: what is printed when they are interrupted."""

from typing import Any

import typer

from gradprix.utils import streams
from gradprix.utils.streams import warn

from . import _signals

SAVES_RUNS = ("race", "tune", "suite")
"""Commands that save each training run when it is finished, unless they only show their plan."""


class Command(streams.Command):
    """A command that reports an interrupt (`KeyboardInterrupt`), and exits with the code of the signal."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            is_saved = ctx.info_name in SAVES_RUNS and not ctx.params["plan"]
            warn(f"gradprix: stopped.{' Finished runs are saved; run the same command to resume.' * is_saved}")
            raise typer.Exit(_signals.exit_code()) from None
