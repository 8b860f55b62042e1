"""The race's record on disk: one SQLite file, one writer."""

import json
import sqlite3
from pathlib import Path
from typing import Any

from ._trial import Outcome, Trial

FILE = "race.db"
SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trials (key TEXT PRIMARY KEY, trial TEXT NOT NULL, outcome TEXT NOT NULL);
"""


class JournalError(ValueError):
    """A folder in which no race can be kept."""


class OtherRaceError(JournalError):
    """The folder holds a race with another plan."""


class Journal:
    """What is finished, kept as it finishes.

    Args:
        folder: where `race.db` is, or is made; None keeps the record in memory.
        to_read: whether it is only read, and must be there.

    Raises:
        JournalError: when the folder cannot be written, or holds something else under that name.
    """

    def __init__(self, folder: Path | None, to_read: bool = False) -> None:
        try:
            if folder is not None and not to_read:
                folder.mkdir(parents=True, exist_ok=True)
            place = ":memory:" if folder is None else f"{(folder / FILE).resolve().as_uri()}{'?mode=ro' * to_read}"
            self.database = sqlite3.connect(place, uri=True)
            if not to_read:
                self.database.execute("PRAGMA journal_mode=WAL")
                self.database.executescript(SCHEMA)
            self.database.execute("SELECT name FROM about LIMIT 1")
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"{folder} cannot hold a race: {error}. Choose another folder with --out.") from error

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.database.close()

    def read(self, name: str) -> Any:
        """A value written under a name, or None."""
        row = self.database.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def write(self, name: str, value: Any) -> None:
        """Keep a value under a name."""
        with self.database:
            self.database.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, json.dumps(value)))

    def finished(self) -> dict[str, Outcome]:
        """Every finished trial's outcome, by key."""
        rows = self.database.execute("SELECT key, outcome FROM trials")
        return {key: Outcome.from_json(outcome) for key, outcome in rows}

    def finish(self, trials: list[Trial], outcomes: list[Outcome]) -> None:
        """Keep what came of some trials, all of them or none."""
        lines = [
            (trial.key, json.dumps(trial.identity), outcome.to_json())
            for trial, outcome in zip(trials, outcomes, strict=True)
        ]
        with self.database:
            self.database.executemany("INSERT OR REPLACE INTO trials VALUES (?, ?, ?)", lines)
