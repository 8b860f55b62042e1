"""Fork of this process as a fork server: what it has imported need not be imported again.

Only for a process that has imported modules and done nothing else, such as the command line before a race: a fork has
no other threads than the one that created it.
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
"""Numbers of options of glibc's `mallopt`, by the variables that set them when a process starts."""
MAX_INT = 2**31 - 1


class ProcessFork:
    """A fork of this process that runs a fork server, with the interface of `subprocess.Popen`.

    Args:
        environment: all environment variables of the server.
        modules: modules that it imports in addition to those of this process.
        requests: number of the socket that it reads requests from.
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
        """Return the exit code, or None while the process runs."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        """Wait for the end of the process and return its exit code."""
        return self._wait(0)

    def kill(self) -> None:
        """Kill the process."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            try:
                number, status = os.waitpid(self.pid, options)
            except ChildProcessError:  # something else has waited for it
                number, status = self.pid, 0
            if number:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def _serve(environment: Mapping[str, str], modules: Iterable[str], parent: int, requests: int) -> NoReturn:
    """Turn this fork into what a new interpreter would be, and serve; never return to the code of its parent."""
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
        except SystemExit as end:  # the end of a worker
            code = end.code
    os._exit(code if isinstance(code, int) else 1)


def _close_files(kept: int) -> None:
    """Close all files but one: a pipe that the parent writes to ends with the parent. Standard streams become null."""
    null_device = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null_device, number)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number != kept:
            with contextlib.suppress(OSError):
                os.close(number)


def _set_malloc_options(environment: Mapping[str, str]) -> None:
    """Set options that glibc reads from the environment only when a process starts."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for name, number in MALLOC_OPTIONS.items():
        if mallopt is not None and name in environment:
            value = int(environment[name])
            mallopt(number, value if value <= MAX_INT else -1)  # -1: no limit
