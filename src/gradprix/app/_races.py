"""Races on this machine: those that are kept in a folder, and those that this app has started."""

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
from gradprix.race.journal import FILE, Journal
from gradprix.show import write_report

from ._state import State


@dataclass(frozen=True)
class Progress:
    """How far a race is.

    Args:
        name: its folder.
        task: what it is on; empty until it has a plan.
        entries: its optimizers, as its plan describes them.
        networks: how many are trained.
        of: how many there will be; None until it has a plan.
        trials: each finished network: entry, learning rate, validation loss (None when it diverged), whether final.
        finished: whether it has come to its answer.
        running: whether this app runs it.
        text: the answer, or what went wrong.
    """

    name: str
    task: str = ""
    entries: tuple[dict[str, Any], ...] = ()
    networks: int = 0
    of: int | None = None
    trials: tuple[tuple[str, float, float | None, bool], ...] = ()
    finished: bool = False
    running: bool = False
    text: str = ""


@dataclass
class Races:
    """Races of a folder; each is started as a process of its own, by the command that anyone would give.

    Args:
        home: where they are kept, `runs`.
    """

    home: Path
    started: dict[str, tuple["subprocess.Popen[bytes]", IO[bytes]]] = field(default_factory=dict)
    lock: "threading.Lock" = field(default_factory=threading.Lock, repr=False)

    def names(self) -> list[str]:
        """Of all races that are kept, also those of suites, the latest first."""
        found = [path for depth in ("*", "*/*") for path in self.home.glob(f"{depth}/{FILE}")]
        found.sort(key=lambda path: -path.stat().st_mtime)
        return [path.parent.relative_to(self.home).as_posix() for path in found]

    def folder(self, name: str) -> Path | None:
        """Where a race is kept; None for anything that is not on the list: names come from addresses."""
        return self.home / name if name in self.names() or name in self.started else None

    def start(self, state: State) -> str:
        """Start the race that a state describes.

        Returns:
            Its name. `progress` says what becomes of it.

        Raises:
            ValueError: with fewer than two optimizers, or while another race is running.
        """
        if len(state.names) < 2:
            raise ValueError("A race needs two optimizers or more.")
        with self.lock:  # requests come on threads of their own
            return self._start(state)

    def _start(self, state: State) -> str:
        if any(process.poll() is None for process, _ in self.started.values()):
            raise ValueError("A race is running. Wait for it, or stop it: two at once would only slow each other down.")
        own = state.task if state.size == "default" else f"{state.task}-{state.size}"  # as the command has it
        names = (own, *(f"{own}-{n}" for n in range(2, 1000)))
        name = next(name for name in names if not (self.home / name).exists() or self._goes_on(name, state))
        said = tempfile.TemporaryFile()  # noqa: SIM115
        process = subprocess.Popen(
            self._command(state, name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,  # the terminal's Ctrl-C is the app's, which then stops the race
        )
        if name in self.started:
            self.started[name][1].close()
        self.started[name] = process, said
        return name

    def _command(self, state: State, name: str) -> list[str]:
        # Names are those of built-in tasks and optimizers alone: an address must not make the app run a file.
        command = [sys.executable, "-m", "gradprix", "race", state.task, "--optimizers", ",".join(state.names)]
        command += ["--preset", state.size, "--out", str(self.home / name)]
        for option, value in (("--trials", state.trials), ("--seeds", state.seeds)):
            command += [] if value is None else [option, str(value)]
        return command

    def _goes_on(self, name: str, state: State) -> bool:
        """Whether this is a race that was started likewise and stopped: the same command finishes what is missing."""
        process, _ = self.started.get(name, (None, None))
        return process is not None and process.args == self._command(state, name) and not self.progress(name).finished

    def stop(self, name: str) -> None:
        """Stop a race that this app has started. What is finished is kept."""
        process, _ = self.started.get(name, (None, None))
        if process is not None and process.poll() is None:
            process.terminate() if os.name == "nt" else process.send_signal(signal.SIGINT)

    def close(self, patience: float = 10.0) -> None:
        """Stop all of them."""
        for name, (process, said) in self.started.items():
            self.stop(name)
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            said.close()

    def progress(self, name: str) -> Progress:
        """How far a race is."""
        process, said = self.started.get(name, (None, None))
        running = process is not None and process.poll() is None
        folder = self.folder(name)
        if folder is None:
            return Progress(name, text=f"There is no race {name!r} in {self.home}.")
        found = _kept(name, folder)
        text = found.get("text", "")
        if not found.get("finished") and not running:
            text = "It was stopped, or is run from elsewhere. `gradprix race` with the same settings goes on with it."
            if process is not None and said is not None and process.returncode:
                said.seek(0)
                lines = said.read().decode(errors="replace").strip().splitlines()
                text = lines[-1] if lines else f"It ended with exit code {process.returncode}."
        # The report is written after the answer: until then the race is not over.
        return Progress(
            name, **{**found, "running": running, "text": text, "finished": bool(found.get("finished")) and not running}
        )

    def report(self, name: str) -> Path | None:
        """The report of a finished race, written now if it has none."""
        folder = self.folder(name)
        if folder is None:
            return None
        path = folder / REPORT
        with suppress(JournalError, OSError):
            return path if path.exists() else write_report(load(folder))
        return None


def _kept(name: str, folder: Path) -> dict[str, Any]:
    """What a journal says by now; nothing as long as there is none."""
    try:
        with Journal(folder, to_read=True) as journal:
            plan, record = journal.read("plan"), journal.read("record")
            rows = journal.database.execute("SELECT trial, outcome FROM trials").fetchall()
    except (JournalError, sqlite3.Error):
        return {}
    if plan is None:
        return {}
    entries = plan["entries"]
    trials = [trial for trial in (_trial(json.loads(made), json.loads(came), entries) for made, came in rows) if trial]
    return {
        "task": plan["task"],
        "entries": tuple(entries),
        "networks": len(trials),
        "of": len(entries) * (plan["trials"] + plan["seeds"]),
        "trials": tuple(trials),
        "finished": record is not None,
        "text": "" if record is None else str(record["verdict"]["text"]),
    }


def _trial(
    made: dict[str, Any], came: dict[str, Any], entries: list[dict[str, Any]]
) -> tuple[str, float, float | None, bool] | None:
    """A finished network as a point; None when it is of no entry of the plan, as of an earlier race in the folder."""
    for entry in entries:
        if entry["rule"] == made["rule"] and entry.get("equations") == made.get("equations"):
            loss = None if came["diverged"] is not None or not came["curve"] else float(came["curve"][-1][2])
            return entry["name"], float(made["values"]["lr"]), loss, bool(made["judged"])
    return None
