"""Web server of the app. By default only this machine can reach it, and pages load no external resources."""

import ipaddress
import logging
import socket
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import flask
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from .race_processes import Races
from .templating import SHARED

LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Content security policy: no external resource, no inline script. Figures have inline styles."""

ROUTES = {
    "/": "landscape_view:page",
    "/landscape.html": "landscape_view:static_file",
    "/step": "step_view:page",
    "/step/equations": "step_view:equations_fragment",
    "/claims": "claims_view:page",
    "/races": "race_views:page",
    "POST /races": "race_views:start",
    "/races/estimate": "race_views:estimate",
    "/races/compare": "race_views:compare",
    "/races/<path:name>": "race_views:race",
    "/races/<path:name>/progress": "race_views:progress",
    "/races/<path:name>/report.html": "race_views:report",
    "/races/<path:name>/figures/<figure>.<form>": "race_views:figure",
    "POST /races/<path:name>/stop": "race_views:stop",
    "POST /races/<path:name>/resume": "race_views:resume",
    "POST /races/<path:name>/note": "race_views:write_note",
}
"""Function that responds to each URL, as `module:function`, with GET unless another method is given. Its module is
imported at the first request, so that a page does not wait for the imports of the others."""

FORMER_TABS = {"landscape": "/", "step": "/step", "race": "/races", "claims": "/claims"}
"""Path of each page by its name in URLs of earlier versions, `/?tab=step`."""


class PortTakenError(ValueError):
    """The port is in use or not permitted."""


def make(races: Races, host: str = "127.0.0.1") -> flask.Flask:
    """Create the Flask app.

    Args:
        races: saved and running races, which views find as `current_app.extensions["races"]`.
        host: address to listen on.
    """
    app = flask.Flask(__name__, template_folder=None)
    app.extensions["races"] = races
    app.before_request(lambda: guard(host))
    app.before_request(_redirect_former_url)
    app.after_request(_add_security_headers)
    app.after_request(_read_file)
    for route, target in ROUTES.items():
        *method, rule = route.split()
        app.add_url_rule(rule, target, _lazy_view(target), methods=method or ["GET"])
    app.add_url_rule("/shared/<path:name>", "shared", lambda name: flask.send_from_directory(SHARED, name))
    app.add_url_rule("/vendor/plotly.min.js", "plotly", lambda: flask.send_file(plotly_script(), max_age=86_400))
    return app


def _lazy_view(target: str) -> Callable[..., Any]:
    """Return a view function that imports its module when it is called.

    Args:
        target: module in this package and function, as `module:function`.
    """
    module, function = target.split(":")

    def view(**values: Any) -> Any:
        return getattr(import_module(f".{module}", __package__), function)(**values)

    return view


def plotly_script() -> Path:
    """Return the path of plotly.min.js in the plotly package, without importing the package."""
    spec = find_spec("plotly")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"


def _redirect_former_url() -> Any:
    """Redirect a URL of an earlier version, such as `/?tab=race&race=digits`, to its page."""
    fields = flask.request.args.to_dict()
    tab = fields.pop("tab", None)
    if flask.request.path != "/" or tab is None:
        return None
    path = FORMER_TABS.get(tab, "/")
    if tab == "race":
        name = fields.pop("race", "").strip("/")
        path += f"/{name}" if name else ""
    return flask.redirect(f"{path}?{urlencode(fields, safe=',:=')}" if fields else path)


def guard(host: str) -> Any:
    """Return status 403 for a request by another web site or to another host, and None for other requests.

    This protects from DNS rebinding, and from other sites that would start races or see which ones there are. Links
    from other sites to a page are allowed.

    Args:
        host: address that the server listens on.
    """
    origin = flask.request.headers.get("Origin")
    host_header = flask.request.headers.get("Host", "")
    is_link = flask.request.method == "GET" and flask.request.headers.get("Sec-Fetch-Mode") == "navigate"
    is_foreign = flask.request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not is_link
    is_other_origin = origin is not None and _parse_origin(origin) != host_header
    if is_foreign or is_other_origin or not is_host_allowed(host_header, host):
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
    response.headers.setdefault("Content-Security-Policy", POLICY)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"  # without it, forms have the origin "null"
    return response


def _read_file(response: flask.Response) -> flask.Response:
    """Read the file of a response and close it; the server leaves it open if the browser drops the connection."""
    if response.direct_passthrough:
        response.direct_passthrough = False
        response.get_data()
        response.close()
    return response


class _Quiet(WSGIRequestHandler):
    """Request handler that does not log successful requests."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Ignore the request instead of logging it."""


def listen(app: flask.Flask, port: int, host: str) -> BaseWSGIServer:
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
            host, listener.getsockname()[1], app, threaded=True, request_handler=_Quiet, fd=listener.fileno()
        )
