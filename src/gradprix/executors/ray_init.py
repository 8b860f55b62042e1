"""Connection to a Ray cluster."""

import contextlib
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

MISSING = "Ray is not installed: pip install 'gradprix[ray]'."
ANSWERS = 15.0
"""Seconds within which a cluster must answer."""
LEFT_OUT = ["runs"]
"""Folders that are not sent with the user's code, in addition to Ray's own exclusions: `runs` holds finished races."""


class EngineError(ValueError):
    """Error raised if an executor is unavailable or cannot be reached; the message contains a remedy."""


def ray_here(address: str | None = None) -> Any:
    """Import Ray, after setting the environment variables that it reads on import.

    Raises:
        EngineError: if Ray is not installed.
    """
    # Ray's messages about lost machines would mix with a result on stdout.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    host, _, port = (address or os.environ.get("RAY_ADDRESS") or "").rpartition(":")
    if host in ("127.0.0.1", "localhost") and port.isdigit() and not _listens(socket.gethostname(), int(port)):
        # The cluster listens on the loopback address only. Ray would replace it by the machine's other address, unless
        # it considers this system unsupported for clusters.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        raise EngineError(MISSING) from error
    return ray


def find_cluster(address: str | None) -> str | None:
    """Return the address of the cluster to join.

    Returns None if this process has joined a cluster already, or if Ray must be started on this machine.

    Args:
        address: `HOST:PORT`; `"auto"` for a cluster that runs on this machine; `"local"` for a new cluster. None for
            the cluster that this process has joined, otherwise the cluster at `RAY_ADDRESS` if this variable is set,
            otherwise a cluster that runs on this machine, otherwise a new cluster.

    Raises:
        EngineError: if Ray is not installed, or no cluster answers at the address.
    """
    ray = ray_here(address)
    requested = address or os.environ.get("RAY_ADDRESS")
    if address is None and ray.is_initialized():
        return None
    if requested is not None and requested.startswith("ray://"):
        raise EngineError(f"address = {requested}: give the cluster's own address, HOST:6379, from a machine in it.")
    from ray._private.services import canonicalize_bootstrap_address

    try:
        place = canonicalize_bootstrap_address(address)  # type: ignore[arg-type]  # None, too
    except ConnectionError:
        place = None  # "auto", but no cluster runs here
    except Exception as error:
        raise EngineError(f"address = {requested}: it must be HOST:PORT, such as 10.0.0.1:6379.") from error
    # For a cluster on this machine that is given by no address, Ray knows the token.
    is_local = address in (None, "auto") and requested == address
    if place is not None and _is_cluster(place, is_local):
        return "auto" if is_local else str(place)
    if requested in (None, "local"):
        return None  # a cluster that ran here has ended
    raise EngineError(
        f"no Ray cluster answers at {place or 'this machine'}. Start one (ray start --head), see that its port (6379) "
        "can be reached from here, or leave the address out to use this machine alone."
    )


def _listens(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=ANSWERS):
        return True
    return False


def _is_cluster(place: str, is_local: bool) -> bool:
    """Return True if a Ray cluster answers at an address. With any other service, Ray would wait for minutes.

    Args:
        place: the address.
        is_local: True for a cluster on this machine, for which Ray supplies the authentication token by itself.

    Raises:
        EngineError: if the cluster requires a token that the user must supply.
    """
    host, _, port = place.rpartition(":")
    if not _listens(host.strip("[]"), int(port)):
        return False
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", place]
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, timeout=ANSWERS, check=False)
        needs_token = b"AuthenticationError" in done.stderr
        if needs_token and not is_local:
            raise EngineError(
                f"the Ray cluster at {place} wants a token: set RAY_AUTH_MODE=token, and have the token in "
                "~/.ray/auth_token, as on its first machine."
            )
        return needs_token or done.returncode == 0
    return False


def connect(place: str | None, folder: Path | None, cpus: int | None) -> None:
    """Join a cluster, or start a cluster on this machine.

    If an earlier call has joined another cluster, or sent another folder, that connection is closed first. A connection
    that the user has made is kept.

    Args:
        place: the cluster's address; None to start a cluster.
        folder: folder with the user's code, which is copied to the cluster's machines; None to copy nothing.
        cpus: number of CPU cores of a new cluster; None for all cores.

    Raises:
        EngineError: if Ray does not start.
    """
    import ray

    if ray.is_initialized():
        if not has_joined_here() or _JOINED["as"][:2] == (place, folder):
            return
        ray.shutdown()
    log_options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if place is None:
            ray.init("local", num_cpus=cpus, _node_ip_address="127.0.0.1", include_dashboard=False, **log_options)
        else:
            environment = {} if folder is None else {"working_dir": str(folder), "excludes": LEFT_OUT}
            options: dict[str, Any] = {"_node_ip_address": "127.0.0.1"} if place.startswith("127.") else {}
            ray.init(place, runtime_env=environment, **options, **log_options)
    except Exception as error:
        where = "this machine" if place is None else place
        what = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        hint = "" if folder is None else f" The folder with your code, {folder}, is sent along: is it small?"
        raise EngineError(f"Ray does not start on {where}: {what}.{hint}") from error
    _JOINED["as"] = (place, folder, job_id())


def job_id() -> str | None:
    """Return Ray's job ID of this process. Returns None if the process has not joined a cluster."""
    import ray

    return str(ray.get_runtime_context().get_job_id()) if ray.is_initialized() else None


def has_joined_here() -> bool:
    """Return True if this process has joined its current cluster by `connect`, and not by the user's own call."""
    return "as" in _JOINED and _JOINED["as"][2] == job_id()


_JOINED: dict[str, tuple[str | None, Path | None, str | None]] = {}
"""Address, folder and job ID of the last connection that `connect` has made, under the key `"as"`."""
