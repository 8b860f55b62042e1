"""Start of a fork server as a fork of this process, so that the server need not import the same modules again.

This is safe only if the process has done nothing but import modules, as the command line before a race, because only
the forking thread exists in a fork.
"""

import contextlib
import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from typing import NoReturn

from .fork_server import serve, set_environment

MALLOC_OPTIONS = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_TOP_PAD_": -2, "MALLOC_MMAP_MAX_": -4}
"""Option numbers of glibc's `mallopt`, by the environment variables that set these options when a process starts."""
MAX_INT = 2**31 - 1


class ProcessFork:
    """A fork of this process that runs a fork server, with the interface of `subprocess.Popen`.

    Args:
        environment: all environment variables of the server.
        modules: modules that the server imports, in addition to those of this process.
        requests: file descriptor of the socket from which the server reads requests.
    """

    def __init__(self, environment: Mapping[str, str], modules: Iterable[str], requests: int) -> None:
        self.returncode: int | None = None
        parent = os.getpid()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if not self.pid:
            _serve(environment, modules, parent, requests)

    def poll(self) -> int | None:
        """Return the exit code. Returns None while the process runs."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        """Wait until the process has ended and return its exit code."""
        return self._wait(0)

    def kill(self) -> None:
        """Kill the process."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:  # other code has already waited for the process
                pid, status = self.pid, 0
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def _serve(environment: Mapping[str, str], modules: Iterable[str], parent: int, requests: int) -> NoReturn:
    """Reset this fork to the state of a new interpreter and run the fork server.

    This function does not return, so that the fork never continues with the code of its parent.
    """
    code: int | str | None = 1
    with contextlib.suppress(BaseException):
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _close_files(requests)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        set_environment({**dict.fromkeys(os.environ), **environment})
        _set_malloc_options(environment)
        for module in modules:
            importlib.import_module(module)
        try:
            serve(parent, requests)
            code = 0
        except SystemExit as end:  # a fork of the server, which is a worker, has ended
            code = end.code
    os._exit(code if isinstance(code, int) else 1)


def _close_files(kept: int) -> None:
    """Close all file descriptors except `kept`, and redirect the standard streams to the null device.

    Otherwise, pipes that the parent writes to would stay open after the parent has ended.
    """
    null_device = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null_device, number)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number != kept:
            with contextlib.suppress(OSError):
                os.close(number)


def _set_malloc_options(environment: Mapping[str, str]) -> None:
    """Set options of glibc's allocator, which reads them from the environment only when a process starts."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for name, number in MALLOC_OPTIONS.items():
        if mallopt is not None and name in environment:
            value = int(environment[name])
            mallopt(number, value if value <= MAX_INT else -1)  # -1: no limit
