"""Files beside the journal of a running race, from which other processes read its progress.

They are in the folder `live` of the race, and exist only while it runs: `progress.json`, and a file of learning curves
for each stack that is being trained.
"""

import contextlib
import shutil
import time
from pathlib import Path

import msgspec

from gradprix.utils.files import write_atomically

FOLDER, PROGRESS = "live", "progress.json"
INTERVAL = 0.5
"""Minimum number of seconds between two writes of the progress."""


class LiveProgress(msgspec.Struct, frozen=True):
    """Progress of a running race.

    Args:
        phase: `tuning`, `final`, `equal time`, or a description of a step before or after the training runs.
        finished_runs: number of finished training runs; unfinished ones count as fractions.
        total_runs: maximum number of training runs; 0 during the preparation.
        seconds_left: expected remaining time if all runs are needed; None if it is unknown.
    """

    phase: str
    finished_runs: float = 0.0
    total_runs: int = 0
    seconds_left: float | None = None


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

    def describe(self, step: str) -> None:
        """Write the description of a step that begins now, before or after the training runs."""
        self._write(msgspec.structs.replace(self.progress, phase=step, seconds_left=None))

    def update(self, phase: str, finished_runs: float, total_runs: int) -> None:
        """Write the progress of the training runs, at most every `INTERVAL` seconds in a phase."""
        now = time.monotonic()
        self.first = self.first or (now, finished_runs)
        if phase == self.progress.phase and now - self.written < INTERVAL:
            return
        elapsed, done = now - self.first[0], finished_runs - self.first[1]
        left = elapsed * (total_runs - finished_runs) / done if done > 0 else None
        self._write(LiveProgress(phase, finished_runs, total_runs, left))

    def _write(self, progress: LiveProgress) -> None:
        self.progress, self.written = progress, time.monotonic()
        if self.folder is not None:
            with contextlib.suppress(OSError):  # the disk may be full
                write_atomically(self.folder / PROGRESS, msgspec.json.encode(progress))


def read_progress(out: Path) -> LiveProgress | None:
    """Read the progress of the race in a folder.

    Returns None if the race does not run, or was killed before it began to train.
    """
    try:
        return msgspec.json.decode((out / FOLDER / PROGRESS).read_bytes(), type=LiveProgress)
    except (OSError, msgspec.DecodeError):
        return None
