"""Preparation of worker processes by the commands that train models."""

import contextlib
import os
import sys
from collections.abc import Iterator

_program: list[int] = []
"""Process ID of the command line if it may be forked. Empty if another program calls gradprix as a library: such a
program may have threads, which do not survive a fork."""


def allow_fork() -> None:
    """Record that this process runs only the command line, so that it may be forked."""
    _program.append(os.getpid())


def prepare_workers() -> None:
    """Import the modules that worker processes need, then start the fork server, from which they will be forked.

    The fork server is a fork of this process. It must be started first in a command, while the process has no other
    threads and no state of its own. The fork server is not started if another program calls gradprix as a library.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read by torch on import; see `environment`
    with _announce("Loading PyTorch and gradprix ..."):
        import gradprix.race  # noqa: F401
        from gradprix.executors.worker_processes import fork_server_early

        if os.getpid() in _program:
            fork_server_early()


@contextlib.contextmanager
def _announce(step: str) -> Iterator[None]:
    """Context manager that shows what is going on, if stderr is a terminal. It needs neither threads nor imports."""
    if not sys.stderr.isatty():
        yield
        return
    sys.stderr.write(step)
    sys.stderr.flush()
    try:
        yield
    finally:
        sys.stderr.write(f"\r{' ' * len(step)}\r")
        sys.stderr.flush()
