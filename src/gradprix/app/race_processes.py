"""Races that the app runs as child processes, in a folder of saved races.

This module imports nothing that is slow to import, because the app starts with it.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from .race_request import RaceRequest

REQUEST, NOTE = "request.json", "note.txt"
"""Files of a race that the app writes: the request, with which the race can be resumed, and the user's note."""
DATABASE, LIVE = "race.db", "live"
"""Journal of a race, and folder with its progress; see `gradprix.race.journal` and `gradprix.race.live_files`."""
STOP_PATIENCE = 0.5
"""Seconds after which a race that was asked to stop is killed. Finished training runs are saved in either case."""
MAX_NOTE = 10_000
"""Maximum number of characters of a note."""


@dataclass
class RaceProcess:
    """Process of a race that the app has started.

    Args:
        process: process.
        errors: its error output.
        is_stopped: True if the user has stopped the race.
    """

    process: "subprocess.Popen[bytes]"
    errors: IO[bytes]
    is_stopped: bool = False

    @property
    def is_running(self) -> bool:
        """True if the process has not ended."""
        return self.process.poll() is None

    @property
    def error(self) -> str:
        """Last line of the error output of a process that has failed; empty if it has not failed or was stopped."""
        if self.is_running or self.is_stopped or self.process.returncode == 0:
            return ""
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"The race ended with exit code {self.process.returncode}."

    def stop(self) -> None:
        """Ask the race to stop, and kill it with its workers if it does not end within `STOP_PATIENCE` seconds."""
        if not self.is_running:
            return
        self.is_stopped = True
        try:
            race = psutil.Process(self.process.pid)
            processes = [race, *race.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        self.process.terminate() if os.name == "nt" else self.process.send_signal(signal.SIGINT)
        for process in psutil.wait_procs(processes, STOP_PATIENCE)[1]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()


def _modified(path: Path) -> float:
    """Return the time of the last change of a file; 0 if it was deleted meanwhile."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_unicode(name: str) -> bool:
    """Return True if a file name can be part of a URL. On Linux, names are bytes, which need not be text."""
    return not any("\udc80" <= character <= "\udcff" for character in name)


@dataclass
class Races:
    """The races in a folder.

    New ones are started as child processes, with the command-line interface.

    Args:
        home: folder of saved races.
        started: process of each race that was started, by name.
        lock: lock that is held while a race is started.
    """

    home: Path
    started: dict[str, RaceProcess] = field(default_factory=dict)
    lock: "threading.Lock" = field(default_factory=threading.Lock, repr=False)

    def names(self) -> list[str]:
        """Return the names of all saved races, most recent first.

        Races of suites are in subfolders.
        """
        journals = [path for depth in ("*", "*/*") for path in self.home.glob(f"{depth}/{DATABASE}")]
        dates = {path.parent.relative_to(self.home).as_posix(): _modified(path) for path in journals}
        return [name for name in sorted(dates, key=lambda name: -dates[name]) if _is_unicode(name)]

    def folder(self, name: str) -> Path | None:
        """Return the folder of a race, or None if there is no race of this name.

        The name is checked because it comes from an untrusted URL.
        """
        return self.home / name if name in self.names() or name in self.started else None

    def process(self, name: str) -> RaceProcess | None:
        """Return the process of a race that this app has started; None for other races."""
        return self.started.get(name)

    def is_running(self, name: str) -> bool:
        """Return True if this app has started the race and it is running."""
        process = self.process(name)
        return process is not None and process.is_running

    def start(self, request: "RaceRequest") -> str:
        """Start a race.

        Returns:
            Name of the race.

        Raises:
            ValueError: if another race is running.
        """
        with self.lock:  # requests are served by several threads
            self._check_idle()
            taken = (request.base_name, *(f"{request.base_name}-{n}" for n in range(2, 10_000)))
            name = next(name for name in taken if self._is_free(self.home / name))
            self._run(name, request)
        return name

    def resume(self, name: str, request: "RaceRequest") -> None:
        """Resume a race that was stopped.

        Raises:
            ValueError: if another race is running.
        """
        with self.lock:
            self._check_idle()
            self._run(name, request)

    def _is_free(self, folder: Path) -> bool:
        """Return True if a folder holds nothing, or the request of a race that was stopped before it began."""
        return not folder.exists() or {path.name for path in folder.iterdir()} <= {REQUEST}

    def _check_idle(self) -> None:
        if any(process.is_running for process in self.started.values()):
            raise ValueError("Another race is running. Wait for it or stop it: concurrent races slow each other down.")

    def _run(self, name: str, request: "RaceRequest") -> None:
        folder = self.home / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REQUEST).write_text(request.to_json(), "utf-8")
        errors = tempfile.TemporaryFile()  # noqa: SIM115
        process = subprocess.Popen(
            self._command(request, name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,  # Ctrl-C reaches the app only, which then stops the race
        )
        if name in self.started:
            self.started[name].errors.close()
        self.started[name] = RaceProcess(process, errors)

    def _command(self, request: "RaceRequest", name: str) -> list[str]:
        return [sys.executable, "-m", "gradprix", "race", *request.arguments, "--out", str(self.home / name)]

    def request(self, name: str) -> "RaceRequest | None":
        """Return the request of a race that was started by the app, now or earlier; None for other races."""
        from .race_request import RaceRequest

        folder = self.folder(name)
        try:
            return None if folder is None else RaceRequest.from_json((folder / REQUEST).read_text("utf-8"))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def stop(self, name: str) -> None:
        """Stop a race if this app has started it, and return when it has ended.

        Its finished training runs remain saved.
        """
        if process := self.process(name):
            process.stop()
            shutil.rmtree(self.home / name / LIVE, ignore_errors=True)  # a race that is killed leaves it

    def close(self) -> None:
        """Stop all running races."""
        for process in self.started.values():
            process.stop()
            process.errors.close()

    def note(self, name: str) -> str:
        """Return the user's note about a race; empty if there is none."""
        folder = self.folder(name)
        try:
            return "" if folder is None else (folder / NOTE).read_text("utf-8", "replace")
        except OSError:
            return ""

    def write_note(self, name: str, text: str) -> None:
        """Save the user's note about a race, up to `MAX_NOTE` characters."""
        folder = self.folder(name)
        if folder is None:
            return
        text = text.strip()[:MAX_NOTE]
        if text:
            (folder / NOTE).write_text(text, "utf-8")
        else:
            (folder / NOTE).unlink(missing_ok=True)
