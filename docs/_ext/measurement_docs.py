"""Committed measurements: where the results are, and what makes them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markdown_docs import table
from measured_values import duration

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("studies", "benchmarks", "src/gradprix/claims", "src/gradprix/race")
"""Folders with results."""


def measurements() -> str:
    """Return a table of all files with results: command, date, machine, version of torch and duration."""
    rows = []
    for file in (file for folder in FOLDERS for file in sorted((ROOT / folder).glob("*.json"))):
        record = json.loads(file.read_text())
        if isinstance(record, dict) and "command" in record:
            rows.append((f"[{file.stem}]({file.relative_to(ROOT)})", *describe(record)))
    return table(("results", "command", "date", "machine", "torch", "time"), rows)


def describe(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of a header; what it does not have is a dash."""
    machine = record.get("machine", {})
    cells = (f"{machine['cores']} cores" if "cores" in machine else "", machine.get("cpu", ""))
    return (
        f"`{record['command']}`",
        record.get("date", "–"),
        ", ".join(filter(None, cells)) or "–",
        record.get("versions", {}).get("torch", "–"),
        duration(record["seconds"]) if record.get("seconds") else "–",
    )
