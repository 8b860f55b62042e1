"""Local web app with pages for optimizers on two-dimensional surfaces, single steps, races on tasks, and claims."""

import signal
import threading
import webbrowser
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from .race_processes import Races
from .server import LOOPBACK, PortTakenError, listen, make

__all__ = ["LOOPBACK", "PortTakenError", "serve"]

PRELOAD_AFTER = 3.0
"""Seconds after which the pages of races are imported: importing PyTorch takes seconds, and would slow down the first
page, which does without."""


def serve(
    port: int = 8050,
    host: str = "127.0.0.1",
    open_browser: bool = True,
    runs: Path = Path("runs"),
    ready: Callable[[str], None] = print,
) -> None:
    """Serve the app until the process is interrupted.

    Args:
        port: port to listen on; 0 selects a free one.
        host: address to listen on; a loopback address is reachable from this machine only.
        open_browser: open the app in the browser.
        runs: folder of saved races.
        ready: callback that receives the URL of the app.

    Raises:
        PortTakenError: if the port is in use.
        ValueError: if `host` is not an address of this machine.
    """
    if threading.current_thread() is threading.main_thread():
        # On any of these signals, stop the races that the app has started: they would continue as orphan processes.
        for name in ("SIGTERM", "SIGHUP", "SIGINT"):  # a shell makes background processes ignore SIGINT
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.default_int_handler)
    races = Races(runs)
    server = listen(make(races, host), port, host)
    visible_host = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    address = f"http://{visible_host}:{server.socket.getsockname()[1]}"
    preload = threading.Timer(PRELOAD_AFTER, import_module, [f"{__name__}.race_views"])
    preload.daemon = True
    try:
        ready(address)
        preload.start()
        if open_browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        server.serve_forever()
    finally:
        preload.cancel()
        server.server_close()
        races.close()
