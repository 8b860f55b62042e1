"""The app in a real browser, as tests use it: server, browser, and a page that must report no problem."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from gradprix.app.race_processes import Races
from gradprix.app.server import listen, make

PATIENCE = 60_000
"""Milliseconds: machines that run the tests do other things besides."""


@contextmanager
def served(runs: Path) -> Iterator[str]:
    """Serve the app with a folder of saved races; the value is its URL, with a slash at the end."""
    races = Races(runs)
    server = listen(make(races), 0, "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        races.close()


def chromium() -> str | None:
    """Return the path of the browser, or None if there is none on this machine."""
    return shutil.which("chromium")


@contextmanager
def launched(webgl: bool = False) -> Iterator[Browser]:
    """Start the browser. WebGL is emulated, which slows down every page."""
    gl = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"] if webgl else ["--disable-gpu"]
    quiet = ("dev-shm-usage", "background-networking", "component-update", "sync")
    args = ["--no-sandbox", "--disable-quic", "--no-first-run", *gl, *(f"--disable-{each}" for each in quiet)]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=args)
        yield browser
        browser.close()


@contextmanager
def faultless(browser: Browser, url: str, width: int = 1280, dark: bool = False) -> Iterator[Page]:
    """Open a page, which must report no error, no failed request, and no request to another server."""
    problems: list[str] = []
    page = browser.new_page(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", device_scale_factor=1
    )
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("response", lambda r: problems.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    page.on("request", lambda r: None if r.url.startswith((url, "data:", "blob:")) else problems.append(r.url))
    try:
        yield page
    finally:
        page.close()
    assert not problems, problems  # pytest shows no values of a helper module
