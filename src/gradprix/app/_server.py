"""The server: this machine alone, nothing from outside, nothing to outside."""

import ipaddress
import logging
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import flask
from dash import Dash
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from . import _export, _landscape, _layout, _race, _step, _sync
from ._races import Races

LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; connect-src 'self' data: blob:; "
    "frame-ancestors 'self'; form-action 'self'"
)
"""The browser itself is told to ask nobody else. Dash and plotly want `unsafe-inline` and `unsafe-eval`."""


class PortTakenError(ValueError):
    """Something else is listening there."""


def make(races: Races, host: str = "127.0.0.1") -> Dash:
    """The app.

    Args:
        races: where races are kept and started.
        host: where it listens.
    """
    app = Dash(
        __name__,
        assets_folder=str(Path(__file__).parent / "assets"),
        serve_locally=True,
        title="gradprix",
        update_title="",
        add_log_handler=False,
        enable_mcp=False,
    )
    app.enable_dev_tools(debug=False, dev_tools_disable_version_check=True, dev_tools_ui=False)
    _layout.dress(app)
    _sync.connect(app)
    _landscape.connect(app)
    _step.connect(app)
    _race.connect(app, races)
    _export.connect(app, races)
    server: flask.Flask = app.server
    server.before_request(lambda: guard(host))
    server.after_request(_told)
    server.add_url_rule("/runs/<path:name>/report.html", "report", lambda name: _report(races, name))
    return app


def guard(host: str) -> Any:
    """Refuse what was asked in another name: a page from elsewhere whose name was made to lead here."""
    origin = flask.request.headers.get("Origin")
    asked = flask.request.headers.get("Host", "")
    if not allowed(asked, host) or (origin is not None and _place(origin) != asked):
        return flask.Response(f"403: gradprix does not answer to {asked!r}.\n", 403, mimetype="text/plain")
    return None


def _place(origin: str) -> str | None:
    """The host and port of an origin; None for what is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def allowed(asked: str, host: str) -> bool:
    """Whether a Host header may be answered.

    Args:
        asked: the header.
        host: where the server listens. Beyond loopback, addresses are answered and this machine's own name: to lead
            a browser astray takes a name of one's own.
    """
    try:
        name = urlsplit(f"//{asked}").hostname or ""
    except ValueError:
        return False
    if name in LOOPBACK:
        return True
    if host in LOOPBACK:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
    return True


def _told(response: flask.Response) -> flask.Response:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _report(races: Races, name: str) -> Any:
    path = races.report(name)
    return flask.send_file(path.resolve()) if path is not None else flask.abort(404)


class _Quiet(WSGIRequestHandler):
    """Says nothing of requests that went well."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Leave it out."""


def listen(app: Dash, port: int, host: str) -> BaseWSGIServer:
    """A server that is bound and waits for `serve_forever`.

    Args:
        app: what it serves.
        port: 0 for any that is free.
        host: where it listens.

    Raises:
        PortTakenError: when something else listens there, or it may not.
        ValueError: for a host that is not this machine's.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except OSError as error:
        raise ValueError(f"host {host!r}: {error}. Give an address of this machine, as 127.0.0.1.") from None
    try:
        bound.bind(place)
        bound.listen(128)
    except OSError as error:
        bound.close()
        raise PortTakenError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}. Another gradprix app may be open there; "
            f"choose another port, such as --port {port + 1}."
        ) from None
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with bound:  # it listens on a copy of its own
        return make_server(
            host, bound.getsockname()[1], app.server, threaded=True, request_handler=_Quiet, fd=bound.fileno()
        )
