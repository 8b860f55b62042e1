"""Termination of the command line: on signals, and promptly at the end."""

import os
import signal
import sys
import threading
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
EXIT_TIMEOUT = 15.0
"""Maximum time in seconds for threads and exit handlers at the end of the process."""


_received: list[int] = []


def exit_code(otherwise: int = 130) -> int:
    """Return the exit code for the received signal, as shells report it."""
    return 128 + _received[-1] if _received else otherwise


def listen() -> None:
    """Install signal handlers that end the process cleanly; a second signal ends it at once.

    Signals that are ignored, as under nohup or in the background of a shell, stay ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        return

    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]

    def stop(number: int, _: FrameType | None) -> None:
        for each in numbers:
            if signal.getsignal(each) is stop:
                signal.signal(each, signal.SIG_DFL)
        _received.append(number)
        raise KeyboardInterrupt(f"signal {number}")  # for every signal: Ray propagates no other from a handler

    for number in numbers:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, stop)


def end_soon(code: int) -> None:
    """Exit with a code, at most `EXIT_TIMEOUT` seconds after the interpreter starts to shut down."""
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
