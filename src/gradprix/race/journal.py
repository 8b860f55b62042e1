"""Journal of a race on disk: an SQLite database that one process at a time writes."""

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
from .setup import Setup

DATABASE, LOCK_FILE = "race.db", "race.lock"
TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
    key TEXT PRIMARY KEY, trial TEXT NOT NULL, outcome TEXT NOT NULL, made TEXT NOT NULL
);
"""
FORMAT = 3
"""Version of the database format, which may differ between versions of gradprix."""


class JournalError(ValueError):
    """Raised if the journal of a race cannot be read from a folder or written into it."""


class OtherRaceError(JournalError):
    """Raised if a folder holds another race, which the given plan cannot resume."""


class BusyError(JournalError):
    """Raised if another race is running in the folder."""


class SavedPlan(msgspec.Struct, frozen=True):
    """Parts of a saved `Plan.description` that are compared with the current plan, or displayed.

    `fingerprint` and `compiled` are None if an earlier version did not save them.
    """

    task: str
    entries: list[dict[str, Any]]
    trials: int
    seeds: int
    fingerprint: str | None = None
    compiled: bool | None = None


class Comparisons(msgspec.Struct, frozen=True):
    """Comparisons that an interim analysis makes.

    Args:
        entries: names of the entries.
        margin: the smallest difference that matters.
        relative: True if the margin is a fraction of the better mean.
        baseline: name of the entry that all others are compared with; None if all pairs are compared.
    """

    entries: list[str]
    margin: float
    relative: bool
    baseline: str | None


class FittedPlan(msgspec.Struct, frozen=True):
    """Plan that was reduced to a time budget.

    Args:
        entries: names of the entries.
        trials: number of tuning trials per entry.
        seeds: maximum number of final seeds.
        epochs: epochs per run.
        seconds: estimated duration of the race.
    """

    entries: list[str]
    trials: int
    seeds: int
    epochs: int | float
    seconds: float


T = TypeVar("T")


class Saved(Generic[T]):
    """Attribute of a journal that is stored in the table `about` of the database.

    It is read from the database on every access, and written on every assignment.

    Args:
        name: name of the row in the table.
        kind: type of the value.
        default: JSON form of the value before any assignment.
        upgrade: function that converts the JSON form that earlier versions wrote.
    """

    def __init__(
        self, name: str, kind: Any, default: Any = None, upgrade: Callable[[Any], Any] = lambda data: data
    ) -> None:
        self.name, self.kind, self.default, self.upgrade = name, kind, default, upgrade

    def __get__(self, journal: "Journal", owner: type) -> T:
        data = journal.read(self.name)
        try:
            value: T = msgspec.convert(self.default if data is None else self.upgrade(data), self.kind)
        except (msgspec.ValidationError, LookupError, TypeError, AttributeError) as error:
            raise journal.damaged(self.name, error) from error
        return value

    def __set__(self, journal: "Journal", value: T) -> None:
        journal.write(self.name, to_json(value))


def open_to_read(folder: Path) -> sqlite3.Connection:
    """Open the database of a race to read it, also while another process writes it.

    The connection refuses to write, but SQLite may: if it is the last one to be closed, SQLite deletes the files
    `race.db-wal` and `race.db-shm`, which a connection with `mode=ro` creates as well and leaves behind.

    Raises:
        sqlite3.Error: if there is no database.
    """
    database = sqlite3.connect(f"{(folder / DATABASE).resolve().as_uri()}?mode=rw", uri=True)
    database.execute("PRAGMA query_only=ON")
    return database


class Journal:
    """Persistent store of a race, to which every trial is written as soon as it is finished.

    Attributes:
        process: process ID of the process that writes the journal.
        plan: plan of the race.
        mode: execution mode of the training runs.
        interim_analyses: interim analyses that were performed.
        comparisons: comparisons that these analyses made.
        seconds: total training time; time between interrupted and resumed calls is not counted.
        step_seconds: duration of a step of each tuned optimizer in a plain training loop, by the key of the trial.
        reruns: replications of final runs, by the key of the trial.
        diagnosis: diagnosis of the final runs.
        setup: what a bundle needs besides the description of the plan; None in races of earlier versions.
        fitted: plans that were reduced to a time budget, by the key of the requested plan and the budget in minutes.
        provenance: identity of the environment, see `made`.

    Args:
        folder: folder of the database, which is created if necessary; None keeps the journal in memory.
        to_read: open an existing journal read-only.
        made: identity of the environment on which the numbers of a trial depend, such as library versions. Trials from
            other environments are not reused.

    Raises:
        JournalError: if the folder is not writable, or the database in it is not a journal.
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
    setup: Saved[Setup | None] = Saved("setup", Setup | None)
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
            if folder is not None and to_read:
                self.database = open_to_read(folder)
            else:
                self.database = sqlite3.connect(":memory:" if folder is None else folder / DATABASE)
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
        is_worth_saving = self.lock is None or self.count_runs() > 0 or self.read("fitted")
        self.database.close()
        if self.lock is not None:
            if not is_worth_saving and self.folder is not None:
                self._remove_files(self.folder)
            self.lock.release()

    def _remove_files(self, folder: Path) -> None:
        """Delete the files of a race that has no finished trials, and the folders that were created for the race."""
        for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", LOCK_FILE):
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            for created in self.created:
                created.rmdir()

    def read(self, name: str) -> Any:
        """Return the value that is stored under a name, or None if there is none.

        Raises:
            JournalError: if the journal is damaged.
        """
        try:
            row = self.database.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
            return None if row is None else json.loads(row[0])
        except (sqlite3.Error, ValueError) as error:
            raise self.damaged(name, error) from error

    def write(self, name: str, value: Any) -> None:
        """Store a JSON-compatible value under a name."""
        with self._wrap_errors("cannot be written"), self.database:
            self.database.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, json.dumps(value)))

    @property
    def record(self) -> RaceRecord | None:
        """Record of the race; None if the race is not finished.

        Raises:
            RecordError: if this version of gradprix cannot read the record.
        """
        data = self.read("record")
        return None if data is None else read_record(data, self.read("form"))

    @record.setter
    def record(self, record: RaceRecord) -> None:
        self.write("record", to_json(record))

    def count_runs(self) -> int:
        """Return the number of finished training runs, from all environments.

        Raises:
            JournalError: if the journal is damaged.
        """
        try:
            return int(self.database.execute("SELECT COUNT(*) FROM trials").fetchone()[0])
        except sqlite3.Error as error:
            raise self.damaged("trials", error) from error

    def finished(self) -> dict[str, Outcome]:
        """Return the outcomes of all finished trials from the same environment, by the key of the trial."""
        rows = self.database.execute("SELECT key, outcome FROM trials WHERE made = ?", (self.provenance,))
        return {key: Outcome.from_json(outcome) for key, outcome in rows}

    def finish(self, trials: list[Trial], outcomes: list[Outcome]) -> None:
        """Store the outcomes of finished trials in one transaction."""
        rows = [
            (trial.key, json.dumps(trial.identity), outcome.to_json(), self.provenance)
            for trial, outcome in zip(trials, outcomes, strict=True)
        ]
        with self._wrap_errors("cannot be written"), self.database:
            self.database.executemany("INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?)", rows)

    def damaged(self, name: str, error: Exception) -> JournalError:
        """Return the error to raise if a part of the journal cannot be read."""
        return JournalError(f"{self.folder} holds a damaged race ({name}: {error}). Choose another folder (--out).")

    def _lock(self, folder: Path) -> None:
        """Lock the folder against other races, until the lock is released or this process ends.

        Raises:
            BusyError: if another race has locked the folder.
        """
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
        """Context manager that raises errors of the file system and of the database as `JournalError`."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise JournalError(
                f"{self.folder} {what}: {error}. Finished runs are saved. Choose another folder with --out, or free "
                "disk space and run the same command to resume."
            ) from error
