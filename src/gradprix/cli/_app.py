"""Command `gradprix app`: the local web app."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from gradprix.utils.streams import echo, warn

from ._errors import report_errors


def app(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free port.")] = 8050,
    host: Annotated[
        str, typer.Option(help="Address to bind. All addresses except loopback give other machines access.")
    ] = "127.0.0.1",
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the app in the browser.")] = True,
    runs: Annotated[Path, typer.Option(help="Folder of saved races.")] = Path("runs"),
    static: Annotated[
        Path | None, typer.Option(help="Write the landscape page to this folder, as one file, and start no server.")
    ] = None,
) -> None:
    """Watch optimizers descend test functions step by step, and start and follow races, in the browser.

    The app is local: it fetches nothing from the network and sends nothing.
    """
    if find_spec("flask") is None:
        warn("gradprix: the app needs Flask, which is not installed: pip install 'gradprix[app]'")
        raise typer.Exit(2)
    if static is not None:
        from gradprix.app.static_page import write_static_page

        with report_errors(OSError):
            echo(f"Landscape page: {write_static_page(static)}")
        return
    from gradprix.app import LOOPBACK, serve

    def ready(address: str) -> None:
        echo(f"gradprix app at {address} (Ctrl-C to stop)")
        if host not in LOOPBACK:
            warn(f"gradprix: everyone who can connect to {host} can start races on this machine.")

    with report_errors(ValueError):
        try:
            serve(port, host, open_, runs, ready)
        except KeyboardInterrupt:
            echo("Stopped.")
