"""Progress of a race on stderr: a live bar in a terminal, otherwise a line for each slow preparation step."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Watch = Callable[[str, float, int], None]
"""Progress callback `(description, finished runs, total runs)`; in preparations the total is 0, or -1 if the step is
known to be slow."""
REPORT_AFTER = 15.0
"""Duration in seconds after which a preparation step is reported without a terminal."""


@contextlib.contextmanager
def progress(patience: float | None = None) -> Iterator[Watch]:
    """Show a progress bar for a race; pass the yielded callback to `race.run` as `watch`.

    Args:
        patience: without a terminal, seconds after which a preparation step such as preflight is reported in a line,
            so that short ones are silent; no lines when None.
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
