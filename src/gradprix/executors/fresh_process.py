"""Execution of function calls in new processes."""

import atexit
import contextlib
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import cloudpickle
from joblib.externals.loky.backend.utils import kill_process_tree

from .fork_server import end_children
from .forked_process import ForkedProcess, end_starts
from .worker_processes import own_settings, prepare_for_users_code, start_environment

FAILED = b""
"""Answer that stands for a failed call: it raised an exception, or its process died."""


class FreshProcess(ForkedProcess):
    """A process with a different hash seed than workers, which reveals results that depend on the order of a set."""

    group: ClassVar[str] = "fresh"


class FreshProcesses:
    """Runner of function calls in new processes, one after the other, in the background."""

    def __init__(self) -> None:
        self._process: FreshProcess | None = None
        self._lock = threading.Lock()
        self._start_lock = threading.Lock()
        atexit.register(self._end)

    def submit(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        """Call a function in a new process.

        Args:
            function: the function; `cloudpickle` must be able to serialize the function and its arguments.
            *args: its arguments.

        Returns:
            A future for the result. Its exception is a `ChildProcessError` if the call failed or its process died.
        """
        call, settings, environment = cloudpickle.dumps((function, args)), own_settings(), start_environment()
        future: Future[Any] = Future()

        def ask() -> None:
            try:
                with self._lock:
                    answer = self._ask(call, settings, environment)
                if answer == FAILED:
                    raise ChildProcessError("it failed in a new process")
                future.set_result(pickle.loads(answer))
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=ask, daemon=True).start()
        return future

    def stop(self) -> None:
        """Kill the process of the current call."""
        with self._start_lock:  # a process that is starting would find no process object, and print a traceback
            process = self._process
        if process is not None:
            kill_process_tree(process)

    def _end(self) -> None:
        """Start no further process and kill the current one, at the end of this program."""
        end_starts()  # first, so that `stop` does not wait for a fork server that still imports its modules
        self.stop()

    def _ask(self, call: bytes, settings: tuple[Any, ...], environment: dict[str, str]) -> bytes:
        (answers, child_answers), (child_calls, calls) = Pipe(duplex=False), Pipe(duplex=False)
        with answers, calls:
            with child_answers, child_calls, self._start_lock:
                process = FreshProcess(target=_answer, args=(child_calls, child_answers), env=environment)
                process.start()
                self._process = process
            try:
                # Sent after the start, which is short: an object of this size fits into no pipe, so that the start
                # would last until the process has imported its modules.
                calls.send((call, settings))
                return answers.recv_bytes()
            except (EOFError, OSError):  # the process died
                return FAILED
            finally:
                self._process = None
                process.join()


def _answer(calls: "Connection[Any, Any]", answers: "Connection[Any, Any]") -> None:
    """Receive a call, run it and send its answer, then end this process with all its threads and child processes."""
    null_device = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # discard output, which the user's code has already printed in its first run
        os.dup2(null_device, stream)
    answer = FAILED
    with contextlib.suppress(BaseException):
        call, settings = calls.recv()
        prepare_for_users_code(*settings)
        function, args = pickle.loads(call)
        answer = pickle.dumps(function(*args))
    with contextlib.suppress(OSError):  # the program that asked has ended
        answers.send_bytes(answer)
    end_children()
    os._exit(0)
