"""Worker processes of this machine: how they start, what they find, and how they end."""

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import resource_tracker
from typing import Any

import psutil
import torch
from joblib.externals.loky import get_reusable_executor, process_executor
from joblib.externals.loky.backend import resource_tracker as loky_tracker

from gradprix.tasks.user_modules import Source, install, sources

from . import fork_server
from .executor import WorkerError
from .fork_server import INTERVAL, ForkContext, ForkedProcess, end_children, get_server

IDLE = 60.0
"""Seconds after which a worker without work ends."""
SAFE = {"PYTHONSAFEPATH": "1"}
"""Has Python not take a user's torch.py or random.py in the working directory for the module of that name."""
CONTEXT = ForkContext()
DAEMONIC = (
    "a race trains in processes of its own, which a daemonic process, such as a worker of multiprocessing.Pool, cannot "
    "start. Run it from a process with daemon=False, or in a concurrent.futures.ProcessPoolExecutor or a thread."
)


def workers(processes: int) -> Any:
    """Return the executor of so many worker processes, which are kept for the next call.

    Raises:
        WorkerError: in a process that must not start others.
    """
    if multiprocessing.current_process().daemon:
        raise WorkerError(DAEMONIC)
    # Where modules are found, too: another environment means other processes, so that what is new is found.
    given = os.getpid(), *own_settings()
    environment = start_environment()
    get_server(ForkedProcess.group, environment)  # here Ctrl-C is heard while it starts
    with _deaf():
        _start_trackers()
        executor = get_reusable_executor(
            processes, CONTEXT, timeout=IDLE, env=environment, initializer=_get_ready, initargs=given
        )
        executor.submit(int)  # it starts them
    _end_at_exit()
    return executor


def start_environment() -> dict[str, str]:
    """Return the variables that a worker starts with, beside those of this process."""
    return {**environment(), **SAFE, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def own_settings() -> tuple[Any, ...]:
    """Return how this process starts others, the variables that a worker's start changes, and the user's modules."""
    own = {name: os.environ.get(name) for name in ("PYTHONPATH", *SAFE)}
    return multiprocessing.get_start_method(allow_none=True), own, sources()


def environment() -> dict[str, str]:
    """What a worker must find in its environment when it starts."""
    fast = "AVX2,STRICT" if torch.backends.cpu.get_cpu_capability().startswith("AVX") else "COMPATIBLE"
    return {
        # Products of matrices must round alike wherever in memory their rows begin. MKL does so when it is told to, as
        # it is loaded.
        "MKL_CBWR": os.environ.get("MKL_CBWR", fast),
        # What torch's C++ warns of is about a program that is not the user's, and goes past Python's warnings.
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
        # Memory of large tensors stays with the process: given back after each operation and taken anew, the system
        # clears every page of it, which takes longer than many operations (glibc; unknown names are ignored).
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**40),
        "MALLOC_TOP_PAD_": str(2**26),
    }


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes that start meanwhile never hear Ctrl-C: it is for this one, which ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_trackers() -> None:
    """Start the processes that remove the semaphores of killed processes, so that they do it without a warning."""
    wanted = {**SAFE, "PYTHONWARNINGS": "ignore"}
    with fork_server.ENVIRONMENT:
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            resource_tracker.ensure_running()
            loky_tracker.ensure_running()
        finally:
            _set_environment(before)


def _set_environment(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _get_ready(parent: int, start_method: str | None, own: Mapping[str, str | None], modules: Sequence[Source]) -> None:
    """Import, in all workers at once, what the first job would; that pickle asks for this function has done it.

    Args:
        parent: the process without which there is nothing to work for. The worker may be the fork of another.
        start_method: how it starts processes of its own; None for the system's way.
        own: variables of its environment that were changed for the start alone.
        modules: those of the user's files; others mean other processes, so that nothing earlier is left of them.
    """
    starter = os.getppid()

    def end_with_parent() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            racing = psutil.Process(parent)
            while os.getppid() == starter and _is_alive(racing):
                time.sleep(INTERVAL)
        end_children()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    process_executor._MAX_MEMORY_LEAK_SIZE = math.inf  # memory that a worker keeps is meant, and is no leak
    prepare_for_users_code(start_method, own, modules)


def _is_alive(process: psutil.Process) -> bool:
    """Return whether a process has not ended; another one with its number is not taken for it."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.AccessDenied:
        return True


def prepare_for_users_code(start_method: str | None, own: Mapping[str, str | None], modules: Sequence[Source]) -> None:
    """Give a worker the settings that a user's code expects. The arguments are those of `own_settings`."""
    _set_environment(own)
    install(modules)
    # The user's code may start processes, and a worker's own way of starting them is for workers alone.
    known = start_method in multiprocessing.get_all_start_methods()
    multiprocessing.set_start_method(start_method if known else None, force=True)
    torch.set_num_threads(1)  # a process that is forked off must find no threads: they do not come along
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a print must not fail for a terminal's encoding
            if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
                setattr(sys, name, _AboveProgress(stream))


class _AboveProgress:
    """A stream on a terminal whose lines take the place of the progress bar, which is drawn again below them."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._at_start = stream, True

    def write(self, text: str) -> int:
        """Write a text, at the start of a line over what is there."""
        if text:
            self._stream.write(("\r\x1b[K" if self._at_start else "") + text)
            self._at_start = text.endswith("\n")
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_ENDED = threading.Lock()
"""Taken by whoever has arranged for the end of the workers first."""


def _end_at_exit() -> None:
    """Arrange for the workers to be ended with this process: they hold nothing, and to ask them takes seconds."""
    # Before the threads are joined, of which one waits for the workers; functions given to atexit come later.
    register = getattr(threading, "_register_atexit", None)
    if register is not None and _ENDED.acquire(blocking=False):
        register(_end_workers)


def _end_workers() -> None:
    with contextlib.suppress(Exception):
        from joblib.externals.loky import reusable_executor

        executor = reusable_executor._executor
        if executor is not None:
            executor.shutdown(wait=True, kill_workers=True)
