"""Files beside the journal of a running race, from which other processes read its progress.

They are in the folder `live` of the race, and exist only while it runs: `progress.json`, and a file of learning curves
for each stack that is being trained.
"""

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from gradprix.text.live_race import format_phase
from gradprix.utils.files import write_atomically

FOLDER, PROGRESS = "live", "progress.json"
INTERVAL = 0.5
"""Minimum number of seconds between two writes of the progress."""
STALL_SECONDS = 20.0
"""Seconds without progress after which the display says what is running."""


class LiveProgress(msgspec.Struct, frozen=True):
    """Progress of a running race.

    Args:
        phase: `tuning`, `final`, `equal time`, or a description of a step before or after the training runs.
        finished_runs: number of finished training runs; unfinished ones count as fractions.
        total_runs: maximum number of training runs; 0 during the preparation.
        seconds_left: expected remaining time if all runs are needed; None if it is unknown.
        leader: name of the entry with the best mean so far in this phase, in tuning with the best validation metric;
            empty if it is unknown. Its lead may be noise.
        workers: state of the workers of a cluster, as text; empty on one machine.
        is_slow: True if a step of the preparation is known to be slow.
        running: names of the entries that are being trained, if there has been no progress for `STALL_SECONDS`.
        seconds_stalled: seconds without progress; 0 below `STALL_SECONDS`.
    """

    phase: str
    finished_runs: float = 0.0
    total_runs: int = 0
    seconds_left: float | None = None
    leader: str = ""
    workers: str = ""
    is_slow: bool = False
    running: tuple[str, ...] = ()
    seconds_stalled: float = 0.0


Watch = Callable[[LiveProgress], None]
"""Progress callback."""


class LiveFiles:
    """Writer of the files of one race; a context manager that creates and deletes them.

    Args:
        out: folder of the race; None writes nothing.

    Attributes:
        folder: folder of the files; None if nothing is written.
    """

    def __init__(self, out: Path | None) -> None:
        self.folder = None if out is None else out / FOLDER
        self.progress = LiveProgress("")
        self.first: tuple[float, float] | None = None
        self.changed = 0.0, -1.0  # time and number of finished runs of the last progress
        self.written = -INTERVAL

    def __enter__(self) -> "LiveFiles":
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)  # of a race that was killed
            with contextlib.suppress(OSError):
                self.folder.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def describe(self, step: str) -> LiveProgress:
        """Write and return the description of a step that begins now, before or after the training runs."""
        self.changed = 0.0, -1.0
        unknown = {"seconds_left": None, "leader": "", "workers": "", "running": (), "seconds_stalled": 0.0}
        self.progress = msgspec.structs.replace(self.progress, phase=step, **unknown)
        self._write(self.progress)
        return self.progress

    def update(
        self,
        phase: str,
        finished_runs: float,
        total_runs: int,
        leader: str = "",
        workers: str = "",
        running: tuple[str, ...] = (),
    ) -> LiveProgress:
        """Write the progress of the training runs, at most every `INTERVAL` seconds in a phase, and return it.

        Args:
            phase: name of the phase.
            finished_runs: number of finished training runs; unfinished ones count as fractions.
            total_runs: maximum number of training runs.
            leader: name of the entry that leads so far.
            workers: state of the workers of a cluster.
            running: names of the entries that are being trained.
        """
        now = time.monotonic()
        self.first = self.first or (now, finished_runs)
        elapsed, done = now - self.first[0], finished_runs - self.first[1]
        left = elapsed * (total_runs - finished_runs) / done if done > 0 else None
        if finished_runs != self.changed[1]:
            self.changed = now, finished_runs
        progress = LiveProgress(phase, finished_runs, total_runs, left, leader, workers)
        if now - self.changed[0] >= STALL_SECONDS:
            progress = msgspec.structs.replace(progress, running=running, seconds_stalled=now - self.changed[0])
        is_new_phase, self.progress = phase != self.progress.phase, progress
        if is_new_phase or now - self.written >= INTERVAL:
            self._write(progress)
        return progress

    def _write(self, progress: LiveProgress) -> None:
        self.written = time.monotonic()
        if self.folder is not None:
            with contextlib.suppress(OSError):  # the disk may be full
                write_atomically(self.folder / PROGRESS, msgspec.json.encode(progress))


class TaskProgress:
    """Progress on several tasks, finished in any order or concurrently, shown as one.

    Args:
        total_runs: maximum number of training runs on all tasks.
        watch: progress callback.
    """

    def __init__(self, total_runs: int, watch: Watch) -> None:
        self.total_runs, self.watch = total_runs, watch
        self.whole, self.finished = LiveFiles(None), dict[str, float]()

    def watch_task(self, task: str) -> Watch:
        """Return the progress callback of a task."""

        def report(progress: LiveProgress) -> None:
            self.finished[task] = progress.finished_runs
            if not (done := sum(self.finished.values())):
                return self.watch(progress)
            phase = f"{task}: {format_phase(progress.phase)}"
            self.watch(self.whole.update(phase, done, self.total_runs, running=progress.running))

        return report


def read_progress(out: Path) -> LiveProgress | None:
    """Read the progress of the race in a folder.

    Returns None if the race does not run, or was killed before it began to train.
    """
    try:
        return msgspec.json.decode((out / FOLDER / PROGRESS).read_bytes(), type=LiveProgress)
    except (OSError, msgspec.DecodeError):
        return None
