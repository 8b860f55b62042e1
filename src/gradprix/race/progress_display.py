"""How far a race is, live on stderr; where that is not a terminal, a line for each preparation that takes long."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Watch = Callable[[str, float, int], None]
"""Hears, now and then, what is running, how many trials are done, and how many there are; before any run, 0 of 0, or of
-1 where that is known to take long."""
PATIENCE = 15.0
"""Seconds that a preparation takes before a user who waits for a plan reads of it where there is no terminal."""


@contextlib.contextmanager
def progress(patience: float | None = None) -> Iterator[Watch]:
    """A bar for a race: give what it yields to `race.run` as `watch`.

    Args:
        patience: seconds that a preparation, such as the check of a task, takes before a line says so where there is
            no terminal, so that short ones are silent; no line at all when None.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("networks"),
        TimeRemainingColumn(),
    )
    seen = console.is_terminal or console.is_jupyter
    line: threading.Timer | None = None
    with Progress(*columns, console=console, transient=True, disable=not seen) as bar:
        job = bar.add_task("starting", total=None)

        def watch(stage: str, done: float, total: int) -> None:
            nonlocal line
            bar.update(job, description=stage, completed=int(done), total=total if total > 0 else None)
            if line is not None:
                line.cancel()
                line = None
            if total <= 0 and not seen and patience is not None:
                line = threading.Timer(
                    patience if total == 0 else 0, lambda: print(f"{stage} ...", file=sys.stderr, flush=True)
                )
                line.daemon = True
                line.start()

        try:
            yield watch
        finally:
            if line is not None:
                line.cancel()
