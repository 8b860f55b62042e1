"""How to get to a Ray cluster."""

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
"""What is not sent with the user's code, besides what Ray leaves out: finished races."""


class EngineError(ValueError):
    """There is no such engine here, or it cannot be reached; the message says what to do."""


def ray_here(address: str | None = None) -> Any:
    """Ray itself, told before it is imported what it asks but then.

    Raises:
        EngineError: when it is not installed.
    """
    # Lines that it prints of machines that are gone would be in the way of a result on stdout.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    host, _, port = (address or os.environ.get("RAY_ADDRESS") or "").rpartition(":")
    if host in ("127.0.0.1", "localhost") and port.isdigit() and not _listens(socket.gethostname(), int(port)):
        # The cluster listens there alone. Ray takes such an address to mean the machine's other one, but on systems on
        # which it has no clusters.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        raise EngineError(MISSING) from error
    return ray


def found(address: str | None) -> str | None:
    """Where the cluster is that an address means; None when there is none yet, and Ray is to be started here.

    Args:
        address: `HOST:PORT`; `"auto"` for one that runs on this machine, `"local"` for a new one; when None, the one
            that this process has joined, or that `RAY_ADDRESS` names, or that runs on this machine, or a new one.

    Raises:
        EngineError: when Ray is not installed, or no cluster answers there.
    """
    ray = ray_here(address)
    wanted = address or os.environ.get("RAY_ADDRESS")
    if address is None and ray.is_initialized():
        return None
    if wanted is not None and wanted.startswith("ray://"):
        raise EngineError(f"address = {wanted}: give the cluster's own address, HOST:6379, from a machine in it.")
    from ray._private.services import canonicalize_bootstrap_address

    try:
        place = canonicalize_bootstrap_address(address)  # type: ignore[arg-type]  # None, too
    except ConnectionError:
        place = None  # "auto", and none runs here
    except Exception as error:
        raise EngineError(f"address = {wanted}: it must be HOST:PORT, such as 10.0.0.1:6379.") from error
    own = address in (None, "auto") and wanted == address  # Ray's own on this machine, of which it knows the token
    if place is not None and _answers(place, own):
        return "auto" if own else str(place)
    if wanted in (None, "local"):
        return None  # what ran here once runs no more
    raise EngineError(
        f"no Ray cluster answers at {place or 'this machine'}. Start one (ray start --head), see that its port (6379) "
        "can be reached from here, or leave the address out to use this machine alone."
    )


def _listens(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=ANSWERS):
        return True
    return False


def _answers(place: str, own: bool) -> bool:
    """Whether a cluster does, and not something else that listens there: Ray itself would wait for it for minutes.

    Raises:
        EngineError: when it wants a token, which Ray gives to those on this machine alone unasked.
    """
    host, _, port = place.rpartition(":")
    if not _listens(host.strip("[]"), int(port)):
        return False
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", place]
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, timeout=ANSWERS, check=False)
        locked = b"AuthenticationError" in done.stderr
        if locked and not own:
            raise EngineError(
                f"the Ray cluster at {place} wants a token: set RAY_AUTH_MODE=token, and have the token in "
                "~/.ray/auth_token, as on its first machine."
            )
        return locked or done.returncode == 0
    return False


def connect(place: str | None, folder: Path | None, cpus: int | None) -> None:
    """Join a cluster, or start one of this machine alone; what this process has joined already is left, if need be.

    Args:
        place: where it is; None to start one.
        folder: what its machines get a copy of: the user's code.
        cpus: how many cores a new one has.

    Raises:
        EngineError: when it does not work.
    """
    import ray

    if ray.is_initialized():
        if not ours() or _JOINED["as"][:2] == (place, folder):
            return
        ray.shutdown()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if place is None:
            ray.init("local", num_cpus=cpus, _node_ip_address="127.0.0.1", include_dashboard=False, **quiet)
        else:
            environment = {} if folder is None else {"working_dir": str(folder), "excludes": LEFT_OUT}
            own: dict[str, Any] = {"_node_ip_address": "127.0.0.1"} if place.startswith("127.") else {}
            ray.init(place, runtime_env=environment, **own, **quiet)
    except Exception as error:
        where = "this machine" if place is None else place
        what = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        hint = "" if folder is None else f" The folder with your code, {folder}, is sent along: is it small?"
        raise EngineError(f"Ray does not start on {where}: {what}.{hint}") from error
    _JOINED["as"] = (place, folder, job())


def job() -> str | None:
    """What Ray calls this process, since it joined; None where it has not."""
    import ray

    return str(ray.get_runtime_context().get_job_id()) if ray.is_initialized() else None


def ours() -> bool:
    """Whether it was here that this process joined the cluster that it is in; else the user did, who knows why."""
    return "as" in _JOINED and _JOINED["as"][2] == job()


_JOINED: dict[str, tuple[str | None, Path | None, str | None]] = {}
"""As what this process has joined a cluster."""
