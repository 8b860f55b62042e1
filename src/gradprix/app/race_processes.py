"""Races on this machine: saved races, and races that the app has started as child processes."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from gradprix.race import REPORT, JournalError, load
from gradprix.race.journal import DATABASE, Journal
from gradprix.race.record_json import RecordError
from gradprix.show import write_report
from gradprix.text.answer import format_answer

from .state import State


@dataclass(frozen=True)
class Progress:
    """Progress of a race.

    Args:
        name: name of the race, its path relative to the folder of saved races.
        task: name of the task; empty before the race is planned.
        entries: optimizers, as described in the plan.
        finished_runs: number of finished training runs.
        total_runs: total number of training runs; None before the race is planned.
        trials: finished training runs, as tuples of entry, learning rate, validation loss (None if the run diverged),
            and True for a final run.
        finished: the result is available.
        running: the race is running as a child process of this app.
        text: result, reason why the race is not running, or error message.
    """

    name: str
    task: str = ""
    entries: tuple[dict[str, Any], ...] = ()
    finished_runs: int = 0
    total_runs: int | None = None
    trials: tuple[tuple[str, float, float | None, bool], ...] = ()
    finished: bool = False
    running: bool = False
    text: str = ""


@dataclass
class Races:
    """The races in a folder.

    New ones are started as child processes, with the command-line interface.

    Args:
        home: folder of saved races.
        started: process and error output of each race that was started, by name.
        lock: lock that is held while a race is started.
    """

    home: Path
    started: dict[str, tuple["subprocess.Popen[bytes]", IO[bytes]]] = field(default_factory=dict)
    lock: "threading.Lock" = field(default_factory=threading.Lock, repr=False)

    def names(self) -> list[str]:
        """Return the names of all saved races, most recent first.

        Races of suites are in subfolders.
        """
        journals = [path for depth in ("*", "*/*") for path in self.home.glob(f"{depth}/{DATABASE}")]
        journals.sort(key=lambda path: -path.stat().st_mtime)
        return [path.parent.relative_to(self.home).as_posix() for path in journals]

    def folder(self, name: str) -> Path | None:
        """Return the folder of a race, or None if there is no race of this name.

        The name is checked because it comes from an untrusted URL.
        """
        return self.home / name if name in self.names() or name in self.started else None

    def start(self, state: State) -> str:
        """Start the race that the race form of a state describes.

        Returns:
            Name of the race.

        Raises:
            ValueError: if there are fewer than two optimizers, or if another race is running.
        """
        if len(state.names) < 2:
            raise ValueError(f"A race needs at least two optimizers, not {len(state.names)}.")
        with self.lock:  # requests are served by several threads
            return self._start(state)

    def _start(self, state: State) -> str:
        if any(process.poll() is None for process, _ in self.started.values()):
            raise ValueError("Another race is running. Wait for it or stop it: concurrent races slow each other down.")
        # The default folder name of the command-line interface.
        base = state.task if state.size == "default" else f"{state.task}-{state.size}"
        names = (base, *(f"{base}-{n}" for n in range(2, 1000)))
        name = next(name for name in names if not (self.home / name).exists() or self._can_resume(name, state))
        errors = tempfile.TemporaryFile()  # noqa: SIM115
        process = subprocess.Popen(
            self._command(state, name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,  # Ctrl-C reaches the app only, which then stops the race
        )
        if name in self.started:
            self.started[name][1].close()
        self.started[name] = process, errors
        return name

    def _command(self, state: State, name: str) -> list[str]:
        # Only built-in tasks and optimizers are accepted: a URL must not make the app execute a file.
        command = [sys.executable, "-m", "gradprix", "race", state.task, "--optimizers", ",".join(state.names)]
        command += ["--preset", state.size, "--out", str(self.home / name)]
        for option, value in (("--trials", state.trials), ("--seeds", state.seeds)):
            command += [] if value is None else [option, str(value)]
        return command

    def _can_resume(self, name: str, state: State) -> bool:
        """Return True if a race of this name was stopped and a new race would have the same command.

        Running the command again then resumes the race.
        """
        process, _ = self.started.get(name, (None, None))
        return process is not None and process.args == self._command(state, name) and not self.progress(name).finished

    def stop(self, name: str) -> None:
        """Stop a race if this app has started it.

        Its finished training runs remain saved.
        """
        process, _ = self.started.get(name, (None, None))
        if process is not None and process.poll() is None:
            process.terminate() if os.name == "nt" else process.send_signal(signal.SIGINT)

    def close(self, patience: float = 10.0) -> None:
        """Stop all running races, and kill those that do not end within `patience` seconds."""
        for name, (process, errors) in self.started.items():
            self.stop(name)
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            errors.close()

    def progress(self, name: str) -> Progress:
        """Return the progress of a race.

        If the name is unknown, the text of the progress says so.
        """
        process, errors = self.started.get(name, (None, None))
        running = process is not None and process.poll() is None
        folder = self.folder(name)
        if folder is None:
            return Progress(name, text=f"There is no race {name!r} in {self.home}.")
        saved = _read_progress(name, folder)
        text = saved.get("text", "")
        if not saved.get("finished") and not running:
            text = "Stopped, or running outside of this app. To resume, run `gradprix race` with the same settings."
            if process is not None and errors is not None and process.returncode:
                errors.seek(0)
                lines = errors.read().decode(errors="replace").strip().splitlines()
                text = lines[-1] if lines else f"The race ended with exit code {process.returncode}."
        # The process writes the report after the result: the race counts as finished once the process has ended.
        return Progress(
            name, **{**saved, "running": running, "text": text, "finished": bool(saved.get("finished")) and not running}
        )

    def report(self, name: str) -> Path | None:
        """Return the path of a finished race's report, which is written if it is missing.

        Returns None if there is no race of this name, or no report can be written.
        """
        folder = self.folder(name)
        if folder is None:
            return None
        path = folder / REPORT
        with suppress(JournalError, OSError):
            return path if path.exists() else write_report(load(folder))
        return None


def _read_progress(name: str, folder: Path) -> dict[str, Any]:
    """Read fields of `Progress` from the journal in a folder.

    Returns an empty dictionary if there is no journal, or no plan in it yet.
    """
    try:
        with Journal(folder, to_read=True) as journal:
            plan, (is_finished, text) = journal.plan, _format_result(journal)
            rows = journal.database.execute("SELECT trial, outcome FROM trials").fetchall()
    except (JournalError, sqlite3.Error):
        return {}
    if plan is None:
        return {}
    entries = plan.entries
    trials = [
        trial
        for trial in (_trial(json.loads(identity), json.loads(outcome), entries) for identity, outcome in rows)
        if trial
    ]
    return {
        "task": plan.task,
        "entries": tuple(entries),
        "finished_runs": len(trials),
        "total_runs": len(entries) * (plan.trials + plan.seeds),
        "trials": tuple(trials),
        "finished": is_finished,
        "text": text,
    }


def _format_result(journal: Journal) -> tuple[bool, str]:
    """Return True if a race is finished, and its result as text.

    The text is empty if the race is not finished. It is an error message if the record cannot be read.
    """
    try:
        record = journal.record
    except RecordError as error:
        return True, f"The race is finished, but {error}"
    return record is not None, "" if record is None else format_answer(record)


def _trial(
    identity: dict[str, Any], outcome: dict[str, Any], entries: list[dict[str, Any]]
) -> tuple[str, float, float | None, bool] | None:
    """Return a finished training run as an element of `Progress.trials`.

    Returns None if the run belongs to no entry of the plan, but to an earlier race in the same folder.
    """
    for entry in entries:
        if entry["rule"] == identity["rule"] and entry.get("equations") == identity.get("equations"):
            loss = None if outcome["diverged"] is not None or not outcome["curve"] else float(outcome["curve"][-1][2])
            return entry["name"], float(identity["values"]["lr"]), loss, bool(identity["judged"])
    return None
