"""Web server of the app. By default only this machine can reach it, and pages load no external resources."""

import ipaddress
import logging
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import flask
from dash import Dash
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from . import claims_page, export, landscape_page, layout, race_page, step_page, url_sync
from .race_processes import Races

LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; connect-src 'self' data: blob:; "
    "frame-ancestors 'self'; form-action 'self'"
)
"""Content security policy, which forbids external resources. Dash and plotly need `unsafe-inline` and `unsafe-eval`."""


class PortTakenError(ValueError):
    """The port is in use or not permitted."""


def make(races: Races, host: str = "127.0.0.1") -> Dash:
    """Create the Dash app.

    Args:
        races: saved and running races.
        host: address to listen on.
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
    layout.set_layout(app)
    url_sync.connect(app)
    landscape_page.connect(app)
    step_page.connect(app)
    race_page.connect(app, races)
    claims_page.connect(app)
    export.connect(app, races)
    server: flask.Flask = app.server
    server.before_request(lambda: guard(host))
    server.after_request(_add_security_headers)
    server.add_url_rule("/runs/<path:name>/report.html", "report", lambda name: _report(races, name))
    return app


def guard(host: str) -> Any:
    """Return status 403 for a request whose Host or Origin header is not allowed, and None for other requests.

    This protects from DNS rebinding and from requests by other web sites.

    Args:
        host: address that the server listens on.
    """
    origin = flask.request.headers.get("Origin")
    host_header = flask.request.headers.get("Host", "")
    if not is_host_allowed(host_header, host) or (origin is not None and _parse_origin(origin) != host_header):
        reason = f"403: host {host_header!r} or the origin of the request is not allowed. Use this machine's address.\n"
        return flask.Response(reason, 403, mimetype="text/plain")
    return None


def _parse_origin(origin: str) -> str | None:
    """Return host and port of an origin, or None if it is invalid."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def is_host_allowed(host_header: str, host: str) -> bool:
    """Return True if requests with this Host header are allowed.

    Args:
        host_header: value of the header.
        host: address that the server listens on. If it is a loopback address, only loopback addresses are allowed in
            the header. Otherwise, all IP addresses and the names of this machine are allowed as well, because DNS
            rebinding needs a name that the attacker controls.
    """
    try:
        name = urlsplit(f"//{host_header}").hostname or ""
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


def _add_security_headers(response: flask.Response) -> flask.Response:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def _report(races: Races, name: str) -> Any:
    path = races.report(name)
    return flask.send_file(path.resolve()) if path is not None else flask.abort(404)


class _Quiet(WSGIRequestHandler):
    """Request handler that does not log successful requests."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Ignore the request instead of logging it."""


def listen(app: Dash, port: int, host: str) -> BaseWSGIServer:
    """Create a server and bind it to its port, so that only `serve_forever` remains to be called.

    Args:
        app: app to serve.
        port: port; 0 selects a free one.
        host: address to listen on.

    Raises:
        PortTakenError: if the port is in use or not permitted.
        ValueError: if `host` is not an address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except OSError as error:
        raise ValueError(f"host {host!r}: {error}. Give an address of this machine, such as 127.0.0.1.") from None
    try:
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise PortTakenError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}. Another gradprix app may use it; choose "
            f"another port, such as --port {port + 1}."
        ) from None
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with listener:  # the server duplicates the file descriptor
        return make_server(
            host, listener.getsockname()[1], app.server, threaded=True, request_handler=_Quiet, fd=listener.fileno()
        )
