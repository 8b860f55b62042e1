"""Journal of a race on disk: one SQLite file with a single writer."""

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import filelock
import msgspec

from gradprix.stats.alpha_spending import InterimAnalysis
from gradprix.training.execution_mode import ExecutionMode
from gradprix.training.trial import Outcome, Trial

from .diagnosis_record import Diagnosis
from .record import RaceRecord
from .record_json import read_diagnosis, read_mode, read_record, to_json
from .run_records import Rerun

DATABASE, LOCK_FILE = "race.db", "race.lock"
TABLES = """
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


class SavedPlan(msgspec.Struct, frozen=True):
    """Parts of a saved plan (`Plan.description`) that are compared or shown; None where an old plan lacks them."""

    task: str
    entries: list[dict[str, Any]]
    trials: int
    seeds: int
    fingerprint: str | None = None
    compiled: bool | None = None


class Comparisons(msgspec.Struct, frozen=True):
    """Comparisons that an interim analysis makes: entries, smallest difference that matters, and baseline."""

    entries: list[str]
    margin: float
    relative: bool
    baseline: str | None


class FittedPlan(msgspec.Struct, frozen=True):
    """Reductions of a plan that made it fit a time budget, and its approximate duration in seconds."""

    entries: list[str]
    trials: int
    seeds: int
    epochs: int | float
    seconds: float


T = TypeVar("T")


class Saved(Generic[T]):
    """A value in the journal's table `about`: read from disk on access, written to disk on assignment.

    Args:
        name: name of its row.
        kind: its type.
        default: its JSON form before it is written.
        upgrade: conversion of what earlier versions wrote.
    """

    def __init__(
        self, name: str, kind: Any, default: Any = None, upgrade: Callable[[Any], Any] = lambda data: data
    ) -> None:
        self.name, self.kind, self.default, self.upgrade = name, kind, default, upgrade

    def __get__(self, journal: "Journal", owner: type) -> T:
        data = journal.read(self.name)
        try:
            value: T = msgspec.convert(self.default if data is None else self.upgrade(data), self.kind)
        except msgspec.ValidationError as error:
            raise JournalError(
                f"{journal.folder} holds a damaged race ({self.name}: {error}). Choose another folder (--out)."
            ) from error
        return value

    def __set__(self, journal: "Journal", value: T) -> None:
        journal.write(self.name, to_json(value))


class Journal:
    """Persistent store of finished trials, written as they finish.

    Attributes:
        process: id of the process that writes the journal.
        plan: the plan of the race.
        mode: execution mode of the models.
        interim_analyses: the interim analyses so far.
        comparisons: comparisons of the first interim analysis and all later ones.
        seconds: training time without interruptions.
        step_seconds: seconds of a step of each tuned optimizer, by the key of its trial.
        reruns: replications of final runs, by the key of their trial.
        diagnosis: diagnosis of the final runs.
        fitted: plans that fit a time budget, by the key of the requested plan and the budget in minutes.

    Args:
        folder: folder of `race.db`, created if needed; None keeps the journal in memory.
        to_read: open an existing journal read-only.
        made: identity of the environment that trials depend on besides their plan, such as library versions: trials
            from another environment are not reused.

    Raises:
        JournalError: if the folder is not writable, or its file is not a journal.
        BusyError: if another race is running in the folder.
    """

    process: Saved[int | None] = Saved("process", int | None)
    plan: Saved[SavedPlan | None] = Saved("plan", SavedPlan | None)
    mode: Saved[ExecutionMode | None] = Saved("form", ExecutionMode | None, upgrade=read_mode)
    interim_analyses: Saved[list[InterimAnalysis]] = Saved("looks", list[InterimAnalysis], default=[])
    comparisons: Saved[Comparisons | None] = Saved("compared", Comparisons | None)
    seconds: Saved[float] = Saved("seconds", float, default=0.0)
    step_seconds: Saved[dict[str, float]] = Saved("step_seconds", dict[str, float], default={})
    reruns: Saved[dict[str, Rerun]] = Saved("reruns", dict[str, Rerun], default={})
    diagnosis: Saved[Diagnosis | None] = Saved("why", Diagnosis | None, upgrade=read_diagnosis)
    fitted: Saved[dict[str, FittedPlan]] = Saved("fitted", dict[str, FittedPlan], default={})

    def __init__(self, folder: Path | None, to_read: bool = False, made: str = "") -> None:
        self.folder, self.provenance = folder, made
        self.lock: filelock.BaseFileLock | None = None
        self.created: list[Path] = []
        with self._wrap_errors("cannot hold a race"):
            if folder is not None and not to_read:
                self.created = [each for each in (folder, *folder.parents) if not each.exists()]
                folder.mkdir(parents=True, exist_ok=True)
                self._lock(folder)
            place = ":memory:" if folder is None else f"{(folder / DATABASE).resolve().as_uri()}{'?mode=ro' * to_read}"
            self.database = sqlite3.connect(place, uri=True)
            written = self.database.execute("PRAGMA user_version").fetchone()[0]
            empty = not self.database.execute("SELECT 1 FROM sqlite_master").fetchall()
            if written != FORMAT and not (empty and not to_read):
                raise JournalError(f"{folder} holds a race of another gradprix version. Choose another folder (--out).")
            if not to_read:
                self.database.execute("PRAGMA journal_mode=WAL")
                self.database.executescript(TABLES)
                self.database.execute(f"PRAGMA user_version={FORMAT}")
                self.process = os.getpid()
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
        for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", LOCK_FILE):
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

    @property
    def record(self) -> RaceRecord | None:
        """Record of the race, once it is finished.

        Raises:
            RecordError: if it cannot be read by this version of gradprix.
        """
        data = self.read("record")
        return None if data is None else read_record(data, self.read("form"))

    @record.setter
    def record(self, record: RaceRecord) -> None:
        self.write("record", to_json(record))

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
        self.lock = filelock.FileLock(folder / LOCK_FILE, blocking=False)
        try:
            self.lock.acquire()
        except filelock.Timeout:
            process = None
            with contextlib.suppress(JournalError, sqlite3.Error), Journal(folder, to_read=True) as other:
                process = other.process
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
