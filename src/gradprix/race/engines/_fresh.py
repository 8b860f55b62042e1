"""Calls of functions in processes in which nothing has run before.

A server process imports everything once and computes nothing; each call is made in a fork of it. Where processes
cannot be forked, or not safely (Windows, macOS), the server makes one call and ends.
"""

import atexit
import contextlib
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import IO, Any

import cloudpickle

from ._processes import end_children, own_settings, prepare_for_users_code, start_environment

SERVE = "from gradprix.race.engines._fresh import serve; serve()"
IDLE = 60.0
"""Seconds after which a server that nobody asks ends."""
LENGTH = struct.Struct("<Q")
FORKS = sys.platform == "linux"
FAILED = b""
"""The answer of a call that raised, or whose process died."""


class FreshProcesses:
    """Makes calls in new processes, one after the other, without waiting for them."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        atexit.register(self.stop)

    def submit(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        """Call a function in a new process.

        Args:
            function: what to call; sent with `cloudpickle`, as its arguments are.
            *args: its arguments.

        Returns:
            Its answer. The exception is `ChildProcessError` where the call failed or its process died.
        """
        call = cloudpickle.dumps((sys.path, os.getcwd(), own_settings(), cloudpickle.dumps((function, args))))
        future: Future[Any] = Future()

        def ask() -> None:
            try:
                with self._lock:
                    answer = self._ask(call)
                if answer == FAILED:
                    raise ChildProcessError("it failed in a new process")
                future.set_result(pickle.loads(answer))
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=ask, daemon=True).start()
        return future

    def stop(self) -> None:
        """End the server, and the call that it is at."""
        server, self._server = self._server, None
        if server is not None:
            if sys.platform == "win32":
                server.kill()
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(server.pid, signal.SIGKILL)  # with what it forked
            server.wait()
            for pipe in (server.stdin, server.stdout):
                with contextlib.suppress(OSError):  # what was not sent any more
                    _there(pipe).close()

    def _ask(self, call: bytes) -> bytes:
        for _ in range(2):  # a server may have ended, having been idle
            if self._server is None or self._server.poll() is not None:
                self.stop()
                self._server = subprocess.Popen(
                    [sys.executable, "-c", SERVE],
                    env={**os.environ, **start_environment()},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for this process, which ends the server
                )
            server = self._server
            with contextlib.suppress(OSError):
                _there(server.stdin).write(LENGTH.pack(len(call)) + call)
                _there(server.stdin).flush()
                header = _there(server.stdout).read(LENGTH.size)
                if len(header) == LENGTH.size:
                    answer = _there(server.stdout).read(LENGTH.unpack(header)[0])
                    if not FORKS:
                        self.stop()
                    return answer
            if self._server is not server:  # it was stopped meanwhile
                break
        return FAILED


def serve() -> None:
    """Make the calls that come in by the standard input, each in a process of its own."""
    parent = os.getppid()
    calls, answers = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # what a user's code prints was printed when it ran first
        os.dup2(nowhere, stream)
    while _ready(calls) and (header := _read(calls, LENGTH.size)):
        call = _read(calls, LENGTH.unpack(header)[0])
        if not FORKS:
            _write(answers, _answer(call))
            return
        child = os.fork()
        if not child:
            _write(answers, _answer(call))
            end_children()
            os._exit(0)
        if not _ended_well(child, parent):
            _write(answers, FAILED)


def _answer(call: bytes) -> bytes:
    try:
        path, folder, settings, rest = pickle.loads(call)
        sys.path[:] = path
        os.chdir(folder)
        prepare_for_users_code(*settings)
        function, args = pickle.loads(rest)
        return pickle.dumps(function(*args))
    except BaseException:
        return FAILED


def _ended_well(child: int, parent: int) -> bool:
    """Wait for a child; end it when the parent is gone."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        if os.getppid() != parent:
            os.kill(child, 9)
            os._exit(1)
        time.sleep(0.01)


def _ready(calls: int) -> bool:
    if sys.platform == "win32":
        return True
    return bool(select.select([calls], [], [], IDLE)[0])


def _read(file: int, count: int) -> bytes:
    parts = b""
    while len(parts) < count:
        part = os.read(file, min(count - len(parts), 1 << 20))
        if not part:
            return b""
        parts += part
    return parts


def _write(file: int, answer: bytes) -> None:
    rest = memoryview(LENGTH.pack(len(answer)) + answer)
    while rest:
        rest = rest[os.write(file, rest) :]


def _there(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
