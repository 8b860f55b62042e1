"""Header of committed measurements: command, date, machine, package versions and duration."""

import os
import platform
import time
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil


def describe_run(command: str, seconds: float | None = None, *packages: str) -> dict[str, Any]:
    """Return the header of a committed measurement.

    Args:
        command: the command that repeats the measurement.
        seconds: its duration; by default, that of the process so far.
        packages: packages whose versions affect the numbers, besides gradprix, torch and numpy.
    """
    versions = {name: metadata.version(name) for name in ("gradprix", "torch", "numpy", *packages)}
    seconds = round(time.time() - psutil.Process().create_time()) if seconds is None else seconds
    return {
        "command": command,
        "date": date.today().isoformat(),
        "machine": describe_machine(),
        "versions": versions,
        "seconds": seconds,
    }


def describe_machine() -> dict[str, Any]:
    """Return the number of cores, the CPU's model name and the operating system."""
    return {"cores": os.cpu_count(), "cpu": cpu_model(), "system": platform.system()}


def cpu_model() -> str:
    """Return the CPU's model name, or "unknown"."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
