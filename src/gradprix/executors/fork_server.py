"""Fork server: on Linux, a process that has imported the modules that workers need, and is forked for each new worker.

A new interpreter takes seconds to import torch. The server imports all modules once. It runs no computations, no other
threads and no accelerator, so that its forks are safe. It ends with the process that started it (see `forked_process`).
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
"""Number of standard streams: input, output and error."""
MOST_FILES = 64
"""Maximum number of file descriptors that a process receives when it starts."""

_received: Sequence[int] = ()
"""File descriptors that this process received when it started."""


class ReceivedFile:
    """A file descriptor that is sent to a starting process.

    Args:
        index: index of the descriptor among those that the process receives.
    """

    def __init__(self, index: int) -> None:
        self._index = index

    def detach(self) -> int:
        """Return the file descriptor in the process that has received it."""
        return _received[self._index]


def serve(parent: int, requests: int) -> None:
    """Fork this process once per request; each fork runs the process object that it receives, and exits.

    Args:
        parent: process ID of the parent process; the server ends when the parent process ends.
        requests: file descriptor of the socket from which requests are read.
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
    """Return True if this process can safely be forked: it has a single thread and no accelerator."""
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
    """Fork this process for each request.

    Args:
        requests: socket from which requests are read.
        parent: process ID of the parent process.

    Returns:
        In each fork, the file descriptors that it has received. In the server, None after the last request, when all
        forks have ended.
    """
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler, the signal would not wake up the process
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
            pid = os.fork()
        except OSError:  # too many processes: the requester gets the error when it starts a new interpreter
            for file in files:
                os.close(file)
            continue
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for file in (woken, wake, status, *forks.values()):
                os.close(file)
            return [data, *rest]
        _write(status, pid)
        forks[pid] = status
        for file in (data, *rest):
            os.close(file)
    return None


def _report_ended(forks: dict[int, int]) -> None:
    """Send the exit codes of the forks that have ended.

    Args:
        forks: for each process ID of a fork, the file descriptor of the pipe to write its exit code to.
    """
    while forks:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        file = forks.pop(pid, None)
        if file is not None:
            _write(file, os.waitstatus_to_exitcode(status))
            os.close(file)


def _write(file: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the requester has ended
        forkserver.write_signed(file, number)


def _run(files: Sequence[int]) -> int:
    """Receive a process object in a fork and run it as in a new interpreter; return the exit code.

    Args:
        files: received file descriptors: a pipe with the process object, the standard streams, the pipes of the
            resource trackers of multiprocessing and loky, and those that the process object refers to.
    """
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
        except (EOFError, pickle.UnpicklingError):  # the requester was interrupted, or has ended
            return 1
        finally:
            del current._inheriting  # type: ignore[attr-defined]
    return int(process_obj._bootstrap())


def _reopen(stream: Any, number: int) -> Any:
    """Return a text stream for a file descriptor, as a new interpreter would create `sys.stdout` or `sys.stderr`.

    Standard error and terminals are line-buffered.

    Args:
        stream: the existing stream, for encoding, error handling and unbuffered mode.
        number: the file descriptor: 1 for standard output, 2 for standard error.
    """
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


def descendants(pid: int) -> list[psutil.Process]:
    """Return all descendants of a process. Returns an empty list if the process has ended."""
    with contextlib.suppress(psutil.Error):
        return list(psutil.Process(pid).children(recursive=True))
    return []
