"""Journal of a race on disk: one SQLite file with a single writer."""

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
"""Version of the file format; other versions of gradprix may use another."""


class JournalError(ValueError):
    """A folder cannot hold the journal of a race."""


class OtherRaceError(JournalError):
    """The folder holds a race on another task."""


class BusyError(JournalError):
    """Another race is running in the folder."""


class Journal:
    """Persistent store of finished trials, written as they finish.

    Args:
        folder: folder of `race.db`, created if needed; None keeps the journal in memory.
        to_read: open an existing journal read-only.
        made: identity of the environment that trials depend on besides their plan, such as library versions: trials
            from another environment are not reused.

    Raises:
        JournalError: if the folder is not writable, or its file is not a journal.
        BusyError: if another race is running in the folder.
    """

    def __init__(self, folder: Path | None, to_read: bool = False, made: str = "") -> None:
        self.folder, self.provenance = folder, made
        self.lock: filelock.BaseFileLock | None = None
        self.created: list[Path] = []
        with self._wrap_errors("cannot hold a race"):
            if folder is not None and not to_read:
                self.created = [each for each in (folder, *folder.parents) if not each.exists()]
                folder.mkdir(parents=True, exist_ok=True)
                self._lock(folder)
            place = ":memory:" if folder is None else f"{(folder / FILE).resolve().as_uri()}{'?mode=ro' * to_read}"
            self.database = sqlite3.connect(place, uri=True)
            written = self.database.execute("PRAGMA user_version").fetchone()[0]
            empty = not self.database.execute("SELECT 1 FROM sqlite_master").fetchall()
            if written != FORMAT and not (empty and not to_read):
                raise JournalError(f"{folder} holds a race of another gradprix version. Choose another folder (--out).")
            if not to_read:
                self.database.execute("PRAGMA journal_mode=WAL")
                self.database.executescript(SCHEMA)
                self.database.execute(f"PRAGMA user_version={FORMAT}")
                self.write("process", os.getpid())
            self.database.execute("SELECT name FROM about LIMIT 1")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        is_worth_saving = self.database.execute("SELECT 1 FROM trials LIMIT 1").fetchall() or self.read("fitted")
        self.database.close()
        if self.lock is not None:
            if not is_worth_saving and self.folder is not None:
                self._remove_files(self.folder)
            self.lock.release()

    def _remove_files(self, folder: Path) -> None:
        """Delete the files of a race without finished trials, and the folders that were created for it."""
        for name in (FILE, f"{FILE}-wal", f"{FILE}-shm", LOCK):
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            for created in self.created:
                created.rmdir()

    def read(self, name: str) -> Any:
        """Return the value stored under a name, or None."""
        row = self.database.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def write(self, name: str, value: Any) -> None:
        """Store a value under a name."""
        with self._wrap_errors("cannot be written"), self.database:
            self.database.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, json.dumps(value)))

    def finished(self) -> dict[str, Outcome]:
        """Return the outcomes of all finished trials, by key."""
        rows = self.database.execute("SELECT key, outcome FROM trials WHERE made = ?", (self.provenance,))
        return {key: Outcome.from_json(outcome) for key, outcome in rows}

    def finish(self, trials: list[Trial], outcomes: list[Outcome]) -> None:
        """Store the outcomes of trials in one transaction."""
        rows = [
            (trial.key, json.dumps(trial.identity), outcome.to_json(), self.provenance)
            for trial, outcome in zip(trials, outcomes, strict=True)
        ]
        with self._wrap_errors("cannot be written"), self.database:
            self.database.executemany("INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?)", rows)

    def _lock(self, folder: Path) -> None:
        """Lock the folder against other races while this process lives."""
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
    def _wrap_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise JournalError(
                f"{self.folder} {what}: {error}. Finished runs are saved. Choose another folder with --out, or free "
                "disk space and run the same command to resume."
            ) from error
