"""Progress display of a race on stderr: a progress bar in a terminal, otherwise a line from time to time."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from gradprix.text.live_race import format_counts, format_phase, format_stall, format_time_left
from gradprix.utils.console import SafeConsole

from .live_files import LiveProgress, Watch

REPORT_AFTER = 5.0
"""Seconds without a line after which a preparation is reported if stderr is not a terminal."""
LINE_INTERVAL = 60.0
"""Seconds between two lines about the progress of training runs if stderr is not a terminal."""
STALL_INTERVAL = 30.0
"""Seconds between two such lines while there is no progress."""
PHASE_INTERVAL = 5.0
"""Seconds without a line after which a new phase is reported at once."""
BAR = 12
"""Width of the bar, in columns."""
LEADS = {"tuning": "Best validation score so far", "final": "Best mean so far", "equal time": "Best mean so far"}
"""What the leader of each phase has."""


class ProgressState:
    """State of the display, which never goes backwards.

    The number of runs is an upper bound, because a race ends early if an interim analysis is conclusive, and grows if
    there are additional runs. So the finished share is the largest one so far.

    Attributes:
        progress: the latest progress.
        finished: number of finished training runs.
        share: finished share of the training runs.
    """

    def __init__(self) -> None:
        self.progress, self.finished, self.share = LiveProgress("Preparing"), 0, 0.0

    def update(self, progress: LiveProgress) -> None:
        """Take over a new progress."""
        self.progress, self.finished = progress, max(self.finished, int(progress.finished_runs))
        if progress.total_runs:
            self.share = max(self.share, min(1.0, progress.finished_runs / progress.total_runs))

    @property
    def phase(self) -> str:
        """Name of the phase or description of the step."""
        return format_phase(self.progress.phase)

    @property
    def runs(self) -> str:
        """Number of finished and of all training runs, as text; empty during the preparation."""
        total = max(self.finished, self.progress.total_runs)
        return format_counts(self.finished, total) if self.progress.total_runs else ""

    @property
    def time_left(self) -> str:
        """Expected remaining time, as text; empty if it is unknown."""
        left = self.progress.seconds_left
        return format_time_left(None if left is None else max(1.0, round(left)))

    @property
    def leader(self) -> str:
        """Entry that leads so far, as text; empty if it is unknown."""
        progress = self.progress
        return f"{LEADS.get(progress.phase, 'Best so far')}: {progress.leader}" if progress.leader else ""

    @property
    def stall(self) -> str:
        """Entries that have been running for some time without progress, as text; empty if there is progress."""
        return format_stall(self.progress.seconds_stalled, self.progress.running)

    def format_line(self) -> str:
        """Format the progress of training runs as one line of a log."""
        parts = f"{self.phase}{self.progress.workers}: {self.runs}", self.time_left
        return "; ".join(filter(None, [", ".join(filter(None, parts)), self.stall or self.leader]))

    def render(self, spinner: Spinner) -> RenderableType:
        """Return the display in a terminal: one line during the preparation, then the bar with its numbers."""
        step = Text(f"{self.phase}{self.progress.workers}", no_wrap=True, overflow="ellipsis")
        if not self.progress.total_runs:
            spinner.update(text=step)
            return spinner
        bar = Table.grid(padding=(0, 1))
        counts = ", ".join(filter(None, (self.runs, self.time_left)))
        bar.add_row(ProgressBar(1.0, self.share, BAR), Text(counts, no_wrap=True, overflow="ellipsis"))
        note = self.stall or self.leader
        shown = Text(f"  {note}", "dim", no_wrap=True, overflow="ellipsis") if note else Text()
        return Group(Text.assemble(step, shown, no_wrap=True, overflow="ellipsis"), bar)


@contextlib.contextmanager
def progress(patience: float | None = None) -> Iterator[Watch]:
    """Context manager that shows the progress of a race.

    In a terminal or a notebook it is a progress bar, otherwise a line every `LINE_INTERVAL` seconds, and at the
    beginning of a phase unless there was a line just before.

    Args:
        patience: seconds without a line after which a preparation such as the preflight, unless it takes less than a
            second, is reported in a line, if stderr is not a terminal. None reports no preparations.

    Yields:
        Progress callback, to be passed to `run` as `watch`.
    """
    console, state = SafeConsole(stderr=True), ProgressState()
    if not (console.is_terminal or console.is_jupyter):
        lines = _Lines(state, patience)
        try:
            yield lines.watch
        finally:
            lines.cancel()
        return
    spinner = Spinner("line")  # characters that every terminal has
    with Live(console=console, transient=True, refresh_per_second=5, get_renderable=lambda: state.render(spinner)):
        yield state.update


class _Lines:
    """Progress as lines on stderr."""

    def __init__(self, state: ProgressState, patience: float | None) -> None:
        self.state, self.patience, self.last = state, patience, time.monotonic()
        self.timer: threading.Timer | None = None

    def cancel(self) -> None:
        """Do not report the present step of the preparation."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def watch(self, progress: LiveProgress) -> None:
        """Report a new progress, at once or later, if it is due."""
        self.cancel()
        now, phase = time.monotonic(), self.state.progress.phase
        self.state.update(progress)
        if progress.total_runs:
            interval = LINE_INTERVAL if phase == progress.phase else PHASE_INTERVAL
            interval = min(interval, STALL_INTERVAL) if progress.seconds_stalled else interval
            if now - self.last >= interval:
                self._print(self.state.format_line())
        elif self.patience is not None:
            wait = 0.0 if progress.is_slow else max(min(self.patience, 1.0), self.last + self.patience - now)
            self.timer = threading.Timer(wait, self._print, (f"{self.state.phase} ...",))
            self.timer.daemon = True
            self.timer.start()

    def _print(self, line: str) -> None:
        self.last = time.monotonic()
        print(line, file=sys.stderr, flush=True)
