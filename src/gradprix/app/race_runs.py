"""Training runs of a race that may still be running, from its journal and from the files of its running stacks."""

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradprix.race.journal import JournalError, open_to_read
from gradprix.race.live_files import FOLDER

IDENTITY = ("rule", "equations", "class", "code")
"""Keys that a trial and its entry have in common."""


@dataclass(frozen=True)
class Run:
    """Training run.

    Args:
        entry: name of the entry.
        learning_rate: learning rate; NaN if there is none.
        is_final: True for a final run, False for a tuning run.
        curve: after each epoch: examples seen, mean training loss, validation loss, validation metric.
        metric: test metric of a finished final run, validation metric of another; NaN if it is not known.
        is_finished: True if the run has finished.
        is_diverged: True if the run has diverged.
    """

    entry: str
    learning_rate: float
    is_final: bool
    curve: Sequence[Sequence[float]]
    metric: float
    is_finished: bool
    is_diverged: bool


@dataclass
class RunReader:
    """Reader of the runs of one race. Finished runs are read from the journal once.

    Args:
        folder: folder of the race.
        finished: finished runs by the key of their trial.
        last_row: number of the last row of the journal that was read.
        last_key: key of the trial in that row.
    """

    folder: Path
    finished: dict[str, Run | None] = field(default_factory=dict)
    last_row: int = 0
    last_key: str = ""

    def read(self, entries: Sequence[Mapping[str, Any]], epochs: float) -> list[Run]:
        """Return all runs of the race with all its examples, finished runs first.

        Args:
            entries: descriptions of the entries in the plan.
            epochs: epochs of the race. Runs with fewer epochs are left out.

        Raises:
            JournalError: if the journal is missing or damaged.
        """
        try:
            with closing(open_to_read(self.folder)) as database:
                self._read_finished(database, entries, epochs)
        except (sqlite3.Error, ValueError, LookupError, TypeError) as error:
            raise JournalError(f"{self.folder} holds a damaged race (trials: {error}).") from error
        running = [
            _running_run(run, entries, epochs)
            for file in (self.folder / FOLDER).glob("stack-*.json")
            for run in _read_list(file)
            if run["key"] not in self.finished
        ]
        return [run for run in (*self.finished.values(), *running) if run is not None]

    def _read_finished(self, database: sqlite3.Connection, entries: Sequence[Mapping[str, Any]], epochs: float) -> None:
        """Read the rows that are new; all of them if the journal was deleted since, and began anew."""
        last = database.execute("SELECT key FROM trials WHERE rowid = ?", (self.last_row,)).fetchone()
        if self.last_row and last != (self.last_key,):
            self.finished, self.last_row = {}, 0
        rows = database.execute(
            "SELECT rowid, key, trial, outcome FROM trials WHERE rowid > ? ORDER BY rowid", (self.last_row,)
        )
        for number, key, identity, outcome in rows:
            self.finished[key] = _finished_run(json.loads(identity), json.loads(outcome), entries, epochs)
            self.last_row, self.last_key = number, key


def _read_list(file: Path) -> list[Any]:
    try:
        return list(json.loads(file.read_bytes()))
    except (OSError, ValueError):
        return []  # the race has just ended


def _finished_run(
    identity: Mapping[str, Any], outcome: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], epochs: float
) -> Run | None:
    is_diverged = outcome["diverged"] is not None
    if is_diverged and not identity["judged"]:
        metric = math.nan
    else:
        metric = outcome["test_metric"] if identity["judged"] else outcome["curve"][-1][3]
    return _make_run(identity, outcome["curve"], metric, True, is_diverged, entries, epochs)


def _running_run(run: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], epochs: float) -> Run | None:
    metric = run["curve"][-1][3] if run["curve"] else math.nan
    is_diverged = bool(run["curve"]) and not math.isfinite(run["curve"][-1][2])
    return _make_run(run["identity"], run["curve"], metric, False, is_diverged, entries, epochs)


def _make_run(
    identity: Mapping[str, Any],
    curve: Sequence[Sequence[float]],
    metric: float,
    is_finished: bool,
    is_diverged: bool,
    entries: Sequence[Mapping[str, Any]],
    epochs: float,
) -> Run | None:
    """Return a run; None if it has fewer epochs, or belongs to an earlier race in the same folder."""
    name = find_entry(identity, entries)
    if name is None or identity["epochs"] != epochs:
        return None
    try:
        learning_rate = float(identity["values"]["lr"])
    except (KeyError, ValueError):
        learning_rate = math.nan
    return Run(name, learning_rate, bool(identity["judged"]), curve, metric, is_finished, is_diverged)


def find_entry(identity: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the name of the entry that a trial belongs to; None if there is none.

    Args:
        identity: identity of the trial, see `gradprix.training.trial.Trial`.
        entries: descriptions of the entries in the plan.
    """
    fitting = [
        entry
        for entry in entries
        if all(entry.get(key) == identity.get(key) for key in IDENTITY if key in entry)
        and all(_is_equal(identity["values"].get(name, value), value) for name, value in entry["fixed"].items())
        and ("batch_size" in entry["space"] or entry["batch_size"] == identity["batch_size"])
        and entry.get("sam_rho") in (None, identity.get("sam_rho"))
    ]
    # An entry that fixes more settings is more specific.
    best = max(fitting, key=lambda entry: len(entry["fixed"]), default=None)
    return None if best is None else str(best["name"])


def _is_equal(value: Any, expected: Any) -> bool:
    """Return True if a trial has the value that its entry fixes; rules have numbers, other classes have `repr`."""
    return value in (expected, repr(expected))
