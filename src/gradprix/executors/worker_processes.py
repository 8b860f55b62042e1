"""Worker processes of this machine: start, settings and shutdown."""

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import resource_tracker
from typing import Any

import psutil
import torch
from joblib.externals.loky import get_reusable_executor, process_executor, reusable_executor
from joblib.externals.loky.backend import resource_tracker as loky_tracker

from gradprix.tasks.module_finders import Source
from gradprix.tasks.user_modules import install, sources

from . import forked_process
from .executor import WorkerError
from .fork_server import INTERVAL, end_children, set_environment
from .forked_process import ForkContext, ForkedProcess, fork_server_from_here, get_server

IDLE = 60.0
"""Seconds after which an idle worker process ends."""
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""Environment variable that keeps Python from importing a user's torch.py or random.py from the working directory."""
FORK_CONTEXT = ForkContext()
DAEMONIC = (
    "a race trains in processes of its own, which a daemonic process, such as a worker of multiprocessing.Pool, cannot "
    "start. Run it from a process with daemon=False, or in a concurrent.futures.ProcessPoolExecutor or a thread."
)


def workers(processes: int) -> Any:
    """Return loky's executor with `processes` worker processes; later calls with the same settings return it again.

    Raises:
        WorkerError: in a daemonic process, which must not start other processes.
    """
    if multiprocessing.current_process().daemon:
        raise WorkerError(DAEMONIC)
    # loky starts new processes if these settings change. They include the import path, so that new modules are found,
    # and the number of processes: while loky resizes an executor, it waits forever for a process killed meanwhile.
    settings = os.getpid(), processes, *own_settings()
    environment = start_environment()
    # The server starts outside of the block below, so that Ctrl-C works meanwhile.
    get_server(ForkedProcess.group, environment)
    with _ignore_interrupts():
        _start_trackers()
        executor = get_reusable_executor(
            processes,
            FORK_CONTEXT,
            timeout=IDLE,
            kill_workers=_is_idle(),  # killing idle workers takes milliseconds, a regular shutdown half a second
            env=environment,
            initializer=_initialize_worker,
            initargs=settings,
        )
        executor.submit(int)  # starts the processes
        executor.submit(int)  # wakes loky's monitoring thread, which would otherwise not notice a killed new process
    _end_at_exit(executor)
    return executor


def fork_server_early() -> None:
    """Start the fork server of the worker processes as a fork of this process.

    Call this only in a process that has done nothing but import modules; see `process_fork`.
    """
    if not multiprocessing.current_process().daemon:
        fork_server_from_here(ForkedProcess.group, start_environment())


def _is_idle() -> bool:
    """Return True if loky's current executor, which another race of this process may use, has no unfinished job."""
    executor = reusable_executor._executor
    return executor is None or not executor._pending_work_items


def start_environment() -> dict[str, str]:
    """Return the environment variables that a worker starts with, in addition to those of this process."""
    return {**environment(), **SAFE_PATH, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def own_settings() -> tuple[Any, ...]:
    """Return the settings of this process that a worker needs to run the user's code.

    These are the start method of multiprocessing, the original values of the environment variables that are changed
    for the start of workers, and the sources of the user's modules.
    """
    variables = {name: os.environ.get(name) for name in ("PYTHONPATH", *SAFE_PATH)}
    return multiprocessing.get_start_method(allow_none=True), variables, sources()


def environment() -> dict[str, str]:
    """Return the environment variables that must be set before a worker starts."""
    mkl_mode = "AVX2,STRICT" if torch.backends.cpu.get_cpu_capability().startswith("AVX") else "COMPATIBLE"
    return {
        # Matrix products must round equally at any alignment of their rows. MKL guarantees this if the variable is set
        # before it is loaded.
        "MKL_CBWR": os.environ.get("MKL_CBWR", mkl_mode),
        # Warnings of torch's C++ code concern the traced program, and bypass Python's warning filters.
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
        # Keep the memory of large tensors in the process: when it is freed and allocated for each operation, the system
        # clears every page of it, which takes longer than many operations (glibc; unknown names are ignored).
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**40),
        "MALLOC_TOP_PAD_": str(2**26),
    }


@contextlib.contextmanager
def _ignore_interrupts() -> Iterator[None]:
    """Make processes that start in this context ignore Ctrl-C, which this process handles by ending them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _start_trackers() -> None:
    """Start the resource trackers, which remove the semaphores of killed processes, with their warnings disabled."""
    variables = {**SAFE_PATH, "PYTHONWARNINGS": "ignore"}
    with forked_process.ENVIRONMENT:
        previous = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            resource_tracker.ensure_running()
            loky_tracker.ensure_running()
        finally:
            set_environment(previous)


def _initialize_worker(
    parent: int, processes: int, start_method: str | None, own: Mapping[str, str | None], modules: Sequence[Source]
) -> None:
    """Prepare a worker process for its first job.

    Unpickling this function has already imported the modules that the first job needs. loky starts new processes
    whenever an argument of this function changes.

    Args:
        parent: ID of the process that the worker works for; with a fork server, this is not its parent process.
        processes: number of workers; unused, but a change of it must start new processes.
        start_method: the user's start method of multiprocessing; None for the default.
        own: original values of the environment variables that were changed for the start of workers.
        modules: sources of the user's modules; a change starts new processes, so that no old version stays loaded.
    """
    starter = os.getppid()

    def end_with_parent() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            owner = psutil.Process(parent)
            while os.getppid() == starter and _is_alive(owner):
                time.sleep(INTERVAL)
        end_children()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    process_executor._MAX_MEMORY_LEAK_SIZE = math.inf  # memory that a worker keeps is intended, not leaked
    prepare_for_users_code(start_method, own, modules)


def _is_alive(process: psutil.Process) -> bool:
    """Return True if a process has not ended. A new process that has got the same process ID does not count."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.AccessDenied:
        return True


def prepare_for_users_code(start_method: str | None, own: Mapping[str, str | None], modules: Sequence[Source]) -> None:
    """Apply the settings that a user's code expects in a worker.

    Args:
        start_method: the user's start method of multiprocessing; None for the default.
        own: values of environment variables to restore; None for variables to delete.
        modules: sources of the user's modules.
    """
    set_environment(own)
    install(modules)
    # The user's code may start processes, which must not use the workers' start method.
    is_known = start_method in multiprocessing.get_all_start_methods()
    multiprocessing.set_start_method(start_method if is_known else None, force=True)
    torch.set_num_threads(1)  # threads do not survive a fork, so torch must not rely on any in a forked process
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # printing must not fail because of the terminal's encoding
            if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
                setattr(sys, name, _AboveProgress(stream))


class _AboveProgress:
    """A terminal stream of a worker. Its lines overwrite the progress bar, which is then redrawn below them."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._at_start = stream, True

    def write(self, text: str) -> int:
        """Write a string; at the start of a line, clear the line first."""
        if text:
            self._stream.write(("\r\x1b[K" if self._at_start else "") + text)
            self._at_start = text.endswith("\n")
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_REGISTERED: "weakref.WeakSet[Any]" = weakref.WeakSet()
"""Executors whose shutdown at exit is registered."""


def _end_at_exit(executor: Any) -> None:
    """Register a handler that kills the workers at exit of this process, instead of loky's regular shutdown.

    Workers hold no data, and a regular shutdown takes seconds. It can also hang, if a worker was killed while it read
    from the queue that all workers share.
    """
    # Must run before threads are joined, one of which waits for the workers; atexit handlers run later. The last
    # registered function runs first, and each executor of loky registers its regular shutdown.
    register = getattr(threading, "_register_atexit", None)
    if register is not None and executor not in _REGISTERED:
        _REGISTERED.add(executor)
        register(_end_workers)


def _end_workers() -> None:
    with contextlib.suppress(Exception):
        executor = reusable_executor._executor
        if executor is not None:
            executor.shutdown(wait=True, kill_workers=True)
