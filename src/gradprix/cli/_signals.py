"""Termination of the command line: signal handlers, exit codes, and a time limit for the interpreter's shutdown."""

import os
import signal
import sys
import threading
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
EXIT_TIMEOUT = 15.0
"""Maximum duration of the interpreter's shutdown, in seconds. Threads and exit handlers can delay it."""


_received: list[int] = []
"""Numbers of the signals received so far."""


def exit_code(otherwise: int = 130) -> int:
    """Return the exit code of a process that was ended by a signal: 128 plus the number of the signal, as in a shell.

    Args:
        otherwise: exit code to return if no signal was received.
    """
    return 128 + _received[-1] if _received else otherwise


def listen() -> None:
    """Install handlers for SIGINT, SIGTERM and SIGHUP that raise `KeyboardInterrupt`.

    A second signal ends the process at once. Signals that are ignored, for example under `nohup`, stay ignored. Outside
    of the main thread, which alone can install handlers, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        return

    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]

    def stop(number: int, _: FrameType | None) -> None:
        for each in numbers:
            if signal.getsignal(each) is stop:
                signal.signal(each, signal.SIG_DFL)
        _received.append(number)
        raise KeyboardInterrupt(f"signal {number}")  # Ray propagates no other exception from a signal handler

    for number in numbers:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, stop)


def end_soon(code: int) -> None:
    """Exit the process with a code.

    If the interpreter has not ended `EXIT_TIMEOUT` seconds after it began to shut down, the process is ended without
    waiting for threads and exit handlers.
    """
    over = threading.Event()

    def wait() -> None:
        over.wait()
        threading.Event().wait(EXIT_TIMEOUT)
        os._exit(code)

    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        threading.Thread(target=wait, daemon=True).start()
        register(over.set)
    sys.exit(code)
