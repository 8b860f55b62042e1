"""How the command line ends: told to by a signal, or by itself, and then at once."""

import os
import signal
import sys
import threading
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
PATIENCE = 15.0
"""Seconds within which a process that is done ends, whatever its threads and exit handlers wait for."""


_received: list[int] = []


def exit_code(otherwise: int = 130) -> int:
    """Return the exit code for the signal that was received, as shells report it."""
    return 128 + _received[-1] if _received else otherwise


def listen() -> None:
    """Have signals end the process in an orderly way; a second one ends it at once.

    One that is ignored, as under nohup or in the background of a shell, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        return

    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]

    def stop(number: int, _: FrameType | None) -> None:
        for each in numbers:
            if signal.getsignal(each) is stop:
                signal.signal(each, signal.SIG_DFL)
        _received.append(number)
        raise KeyboardInterrupt(f"signal {number}")  # for any signal: Ray passes on no other exception of a handler

    for number in numbers:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, stop)


def end_soon(code: int) -> None:
    """End the process with a code within a time, counted from when the interpreter begins to shut down."""
    over = threading.Event()

    def wait() -> None:
        over.wait()
        threading.Event().wait(PATIENCE)
        os._exit(code)

    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        threading.Thread(target=wait, daemon=True).start()
        register(over.set)
    sys.exit(code)
