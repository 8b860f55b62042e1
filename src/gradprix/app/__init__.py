"""The app: a local page on which optimizers race down surfaces, lay open their steps, and race on tasks."""

import signal
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

from ._races import Races
from ._run import run
from ._server import LOOPBACK, PortTakenError, listen, make
from ._state import Setting

__all__ = ["LOOPBACK", "PortTakenError", "serve"]


def serve(
    port: int = 8050,
    host: str = "127.0.0.1",
    open_browser: bool = True,
    runs: Path = Path("runs"),
    ready: Callable[[str], None] = print,
) -> None:
    """Serve the app until it is interrupted.

    Args:
        port: where it listens; 0 for any that is free.
        host: on which address; on loopback nobody but this machine can reach it.
        open_browser: whether to open it in the browser.
        runs: where races are kept.
        ready: hears the address.

    Raises:
        PortTakenError: when something else listens there.
        ValueError: for a host that is not this machine's.
    """
    if threading.current_thread() is threading.main_thread():
        # However it is told to end, it ends the races that it has started, which would go on alone.
        for name in ("SIGTERM", "SIGHUP", "SIGINT"):  # which is ignored where a shell starts it behind &
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.default_int_handler)
    races = Races(runs)
    server = listen(make(races, host), port, host)
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{server.socket.getsockname()[1]}"
    try:
        ready(address)
        threading.Thread(target=run, args=(Setting(),), daemon=True).start()  # what is seen first
        if open_browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        server.serve_forever()
    finally:
        server.server_close()
        races.close()
