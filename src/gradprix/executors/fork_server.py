"""Fork server: on Linux, a process that has imported what workers need, and is forked for each new worker.

A new interpreter takes seconds to import torch. The server imports everything once, computes nothing, and starts no
threads and no accelerator. It lives as long as the process that started it (see `forked_process`).
"""

import contextlib
import gc
import importlib
import io
import os
import pickle
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing import connection, process, resource_tracker, spawn
from typing import Any

import numpy as np
import psutil
import torch
from joblib.externals.loky.backend import resource_tracker as loky_tracker

if sys.platform == "linux":
    from multiprocessing import forkserver

READY = b"ready"
INTERVAL = 1.0
"""Seconds between two checks that the parent process is alive."""
STREAMS = 3
"""Standard input, output and error."""
MOST_FILES = 64
"""Maximum number of file descriptors that a process receives when it starts."""

_received: Sequence[int] = ()
"""File descriptors that this process received when it started."""


class ReceivedFile:
    """A file descriptor that is being sent to a starting process."""

    def __init__(self, index: int) -> None:
        self._index = index

    def detach(self) -> int:
        """Return the descriptor's number in this process."""
        return _received[self._index]


def serve(parent: int, requests: int) -> None:
    """Fork once per request; each child runs the process object that it receives, and exits.

    Args:
        parent: PID of the process whose end also ends the server.
        requests: file descriptor of the socket that requests arrive on.
    """
    with socket.socket(fileno=requests) as requests_socket:
        if not can_fork():
            return
        try:
            requests_socket.send(READY)
        except OSError:
            return
        gc.collect()
        gc.freeze()  # garbage collection in a fork would copy the pages of all objects
        files = _fork_on_request(requests_socket, parent)
    if files is not None:
        sys.exit(_run(files))


def can_fork() -> bool:
    """Return True if a fork of this process is complete: it has one thread and no accelerator."""
    if torch.accelerator.is_available():
        return False
    # OpenBLAS starts threads on import, and ends them at the first fork.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return threading.active_count() == 1 and len(os.listdir("/proc/self/task")) == 1


def _fork_on_request(requests: socket.socket, parent: int) -> list[int] | None:
    """Return the received files in each fork, and None in the server after the last request."""
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # the wake-up descriptor needs a handler
    forks: dict[int, int] = {}
    is_asked = True
    while is_asked or forks:
        ready = connection.wait([requests, woken] if is_asked else [woken], INTERVAL)
        if os.getppid() != parent:
            end_children()
            os._exit(1)
        if woken in ready:
            os.read(woken, 1 << 16)
            _report_ended(forks)
        if requests not in ready:
            continue
        message, files, *_ = socket.recv_fds(requests, len(READY), MOST_FILES)
        if not message:
            is_asked = False
            continue
        data, status, *rest = files
        try:
            number = os.fork()
        except OSError:  # too many processes: the requester gets the error when it starts a new interpreter
            for file in files:
                os.close(file)
            continue
        if not number:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for file in (woken, wake, status, *forks.values()):
                os.close(file)
            return [data, *rest]
        _write(status, number)
        forks[number] = status
        for file in (data, *rest):
            os.close(file)
    return None


def _report_ended(forks: dict[int, int]) -> None:
    """Send the exit codes of the forks that have ended."""
    while forks:
        number, status = os.waitpid(-1, os.WNOHANG)
        if not number:
            return
        file = forks.pop(number, None)
        if file is not None:
            _write(file, os.waitstatus_to_exitcode(status))
            os.close(file)


def _write(file: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the requester has ended
        forkserver.write_signed(file, number)


def _run(files: Sequence[int]) -> int:
    """Run the process object that is sent to a fork, as in a new interpreter; return the exit code."""
    global _received
    data, *files = files
    for file in files:
        os.set_inheritable(file, False)
    for number, file in enumerate(files[:STREAMS]):
        os.dup2(file, number)
        os.close(file)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = _reopen(getattr(sys, name), number)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    resource_tracker._resource_tracker._fd, loky_tracker._resource_tracker._fd, *_received = files[STREAMS:]  # type: ignore[attr-defined]
    np.random.seed()  # otherwise all forks would draw the same numbers
    importlib.invalidate_caches()
    with open(data, "rb") as stream_of_objects:
        current = process.current_process()
        current._inheriting = True  # type: ignore[attr-defined]
        try:
            set_environment({**dict.fromkeys(os.environ), **pickle.load(stream_of_objects)})
            spawn.prepare(pickle.load(stream_of_objects))
            process_obj = pickle.load(stream_of_objects)
        except EOFError:  # the requester was interrupted
            return 1
        finally:
            del current._inheriting  # type: ignore[attr-defined]
    return int(process_obj._bootstrap())


def _reopen(stream: Any, number: int) -> Any:
    """Return the stream that a new interpreter would create for this file; pipes, terminals and files differ."""
    is_unbuffered = stream.write_through
    return io.TextIOWrapper(
        open(number, "wb", buffering=0 if is_unbuffered else -1, closefd=False),
        encoding=stream.encoding,
        errors=stream.errors,
        newline="\n",
        line_buffering=number == 2 or os.isatty(number),
        write_through=is_unbuffered,
    )


def set_environment(variables: Mapping[str, str | None]) -> None:
    """Set environment variables, and delete those whose value is None."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def end_children() -> None:
    """Kill all descendants of this process."""
    for child in descendants(os.getpid()):
        with contextlib.suppress(psutil.Error):
            child.kill()


def descendants(number: int) -> list[psutil.Process]:
    """Return all descendants of a process; none if it has ended."""
    with contextlib.suppress(psutil.Error):
        return list(psutil.Process(number).children(recursive=True))
    return []
