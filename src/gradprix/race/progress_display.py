"""Progress display of a race on stderr: a progress bar in a terminal, otherwise a line from time to time."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Watch = Callable[[str, float, int], None]
"""Progress callback with the arguments (description, finished runs, total runs). While a race is prepared, the total is
0, or -1 if the preparation is known to be slow."""
REPORT_AFTER = 5.0
"""Seconds without a line after which a preparation is reported if stderr is not a terminal."""
LINE_INTERVAL = 60.0
"""Seconds between two lines about the progress of training runs if stderr is not a terminal."""


@contextlib.contextmanager
def progress(patience: float | None = None) -> Iterator[Watch]:
    """Context manager that shows the progress of a race.

    In a terminal or a notebook it is a progress bar, otherwise a line every `LINE_INTERVAL` seconds.

    Args:
        patience: seconds without a line after which a preparation such as the preflight, unless it takes less than a
            second, is reported in a line, if stderr is not a terminal. None reports no preparations.

    Yields:
        Progress callback, to be passed to `run` as `watch`.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TextColumn("training runs"),
        TimeRemainingColumn(),
    )
    seen = console.is_terminal or console.is_jupyter
    line: threading.Timer | None = None
    first: tuple[float, float] | None = None
    last = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not seen) as bar:
        job = bar.add_task("starting", total=None)

        def say(stage: str) -> None:
            nonlocal last
            last = time.monotonic()
            print(f"{stage} ...", file=sys.stderr, flush=True)

        def watch(stage: str, done: float, total: int) -> None:
            nonlocal line, first, last
            bar.update(job, description=stage, completed=int(done), total=total if total > 0 else None)
            if line is not None:
                line.cancel()
                line = None
            if total <= 0 and not seen and patience is not None:
                wait = max(min(patience, 1.0), last + patience - time.monotonic()) if total == 0 else 0.0
                line = threading.Timer(wait, say, (stage,))
                line.daemon = True
                line.start()
            if total > 0 and not seen:
                now = time.monotonic()
                first = first or (now, done)
                if now - last >= LINE_INTERVAL:
                    last = now
                    left = _format_time_left(now - first[0], done - first[1], total - done)
                    print(f"{stage}: {int(done):,} of {total:,} training runs{left}", file=sys.stderr, flush=True)

        try:
            yield watch
        finally:
            if line is not None:
                line.cancel()


def _format_time_left(elapsed: float, done: float, left: float) -> str:
    """Format the expected remaining time as a clause; empty if no run has been done yet.

    Args:
        elapsed: elapsed seconds.
        done: number of runs done in this time.
        left: number of runs left.
    """
    if done <= 0:
        return ""
    minutes = elapsed * left / done / 60
    return f", about {minutes:.0f} min left" if minutes >= 1 else ", less than a minute left"


def format_rate(steps_per_second: float) -> str:
    """Format the speed of training, such as `1,200 steps/s` or `0.5 steps/s`; empty if it is zero."""
    if not steps_per_second:
        return ""
    return f"{steps_per_second:,.0f} steps/s" if steps_per_second >= 10 else f"{steps_per_second:.2g} steps/s"
