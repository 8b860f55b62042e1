"""Progress display of a race on stderr: a progress bar in a terminal, otherwise a line for each slow preparation."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Watch = Callable[[str, float, int], None]
"""Progress callback with the arguments (description, finished runs, total runs). While a race is prepared, the total is
0, or -1 if the preparation is known to be slow."""
REPORT_AFTER = 15.0
"""Seconds after which a preparation is reported if stderr is not a terminal."""


@contextlib.contextmanager
def progress(patience: float | None = None) -> Iterator[Watch]:
    """Context manager that shows a progress bar for a race.

    Args:
        patience: seconds after which a preparation such as the preflight is reported in a line, if stderr is not a
            terminal. Shorter preparations are not reported. None reports no preparations.

    Yields:
        Progress callback, to be passed to `run` as `watch`.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("training runs"),
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
