"""What a kept file was made by: the command, the machine, the versions and the time it took."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any


def made_by(command: str, seconds: float, *packages: str) -> dict[str, Any]:
    """The head of a kept file.

    Args:
        command: what makes it again.
        seconds: how long that took.
        packages: whose versions its numbers depend on, besides gradprix, torch and numpy.
    """
    versions = {name: metadata.version(name) for name in ("gradprix", "torch", "numpy", *packages)}
    machine = {"cores": os.cpu_count(), "cpu": processor(), "system": platform.system()}
    return {"command": command, "machine": machine, "versions": versions, "seconds": seconds}


def processor() -> str:
    """What the machine calls its processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
