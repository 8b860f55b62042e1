"""The race's record on disk: one SQLite file, one writer."""

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from gradprix.training.trial import Outcome, Trial

FILE, LOCK = "race.db", "race.lock"
SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
    key TEXT PRIMARY KEY, trial TEXT NOT NULL, outcome TEXT NOT NULL, made TEXT NOT NULL
);
"""
FORMAT = 3
"""Of the file: another one was written by another version of gradprix."""


class JournalError(ValueError):
    """A folder in which no race can be kept."""


class OtherRaceError(JournalError):
    """The folder holds a race on another task."""


class BusyError(JournalError):
    """Another race is running in the folder."""


class Journal:
    """What is finished, kept as it finishes.

    Args:
        folder: where `race.db` is, or is made; None keeps the record in memory.
        to_read: whether it is only read, and must be there.
        made: what the numbers of trials depend on besides their plan, as versions of libraries: trials that were made
            otherwise are not used.

    Raises:
        JournalError: when the folder cannot be written, or holds something else under that name.
        BusyError: when another race is running there.
    """

    def __init__(self, folder: Path | None, to_read: bool = False, made: str = "") -> None:
        self.folder, self.made = folder, made
        self.lock: filelock.BaseFileLock | None = None
        self.new: list[Path] = []
        with self._trouble("cannot hold a race"):
            if folder is not None and not to_read:
                self.new = [each for each in (folder, *folder.parents) if not each.exists()]
                folder.mkdir(parents=True, exist_ok=True)
                self._claim(folder)
            place = ":memory:" if folder is None else f"{(folder / FILE).resolve().as_uri()}{'?mode=ro' * to_read}"
            self.database = sqlite3.connect(place, uri=True)
            written = self.database.execute("PRAGMA user_version").fetchone()[0]
            empty = not self.database.execute("SELECT 1 FROM sqlite_master").fetchall()
            if written != FORMAT and not (empty and not to_read):
                raise JournalError(f"{folder} holds a race of another version of gradprix. Choose another (--out).")
            if not to_read:
                self.database.execute("PRAGMA journal_mode=WAL")
                self.database.executescript(SCHEMA)
                self.database.execute(f"PRAGMA user_version={FORMAT}")
                self.write("process", os.getpid())
            self.database.execute("SELECT name FROM about LIMIT 1")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        kept = self.database.execute("SELECT 1 FROM trials LIMIT 1").fetchall() or self.read("fitted")
        self.database.close()
        if self.lock is not None:
            if not kept and self.folder is not None:
                self._leave_nothing(self.folder)
            self.lock.release()

    def _leave_nothing(self, folder: Path) -> None:
        """Take away the files of a race of which nothing is finished, and folders that were made for it."""
        for name in (FILE, f"{FILE}-wal", f"{FILE}-shm", LOCK):
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            for made in self.new:
                made.rmdir()

    def read(self, name: str) -> Any:
        """A value written under a name, or None."""
        row = self.database.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def write(self, name: str, value: Any) -> None:
        """Keep a value under a name."""
        with self._trouble("cannot be written"), self.database:
            self.database.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, json.dumps(value)))

    def finished(self) -> dict[str, Outcome]:
        """Every finished trial's outcome, by key."""
        rows = self.database.execute("SELECT key, outcome FROM trials WHERE made = ?", (self.made,))
        return {key: Outcome.from_json(outcome) for key, outcome in rows}

    def finish(self, trials: list[Trial], outcomes: list[Outcome]) -> None:
        """Keep what came of some trials, all of them or none."""
        lines = [
            (trial.key, json.dumps(trial.identity), outcome.to_json(), self.made)
            for trial, outcome in zip(trials, outcomes, strict=True)
        ]
        with self._trouble("cannot be written"), self.database:
            self.database.executemany("INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?)", lines)

    def _claim(self, folder: Path) -> None:
        """Keep other races out for as long as this process lives."""
        self.lock = filelock.FileLock(folder / LOCK, blocking=False)
        try:
            self.lock.acquire()
        except filelock.Timeout:
            process = None
            with contextlib.suppress(JournalError, sqlite3.Error), Journal(folder, to_read=True) as other:
                process = other.read("process")
            raise BusyError(
                f"another race is running in {folder} (process {process}). Wait for it, stop it, or choose another "
                "folder with --out."
            ) from None

    @contextlib.contextmanager
    def _trouble(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise JournalError(
                f"{self.folder} {what}: {error}. What is finished is kept; choose another folder with --out, or make "
                "room and give the same command again."
            ) from error
