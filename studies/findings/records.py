"""Results of findings as JSON files."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gradprix.claims import Measured
from gradprix.claims.registry import Quantities
from gradprix.utils.run_info import describe_run

from .registry import FOLDER, Finding, format_verdict

RESULTS = FOLDER / "results"
"""Folder of the committed results."""


def make_record(finding: Finding, quantities: Quantities, seconds: float, cpu_seconds: float) -> dict[str, Any]:
    """Return a result as JSON.

    Args:
        finding: the finding.
        quantities: its measured quantities.
        seconds: duration of the measurement.
        cpu_seconds: processor time of the measurement, with worker processes.
    """
    conclusion = finding.conclude(quantities)
    described = finding.describe(quantities)
    header = describe_run(f"python studies/run_findings.py {finding.id}", round(seconds, 1), "scipy")
    return {
        "id": finding.id,
        "verdict": format_verdict(conclusion.verdict, conclusion.condition),
        "sentence": conclusion.says,
        "prediction": finding.prediction,
        "decides": finding.decides,
        **header,
        "cpu_seconds": round(cpu_seconds, 1),
        "quantities": {
            name: asdict(described[name]) if name in described else value for name, value in quantities.items()
        },
    }


def read_quantities(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the quantities of a record, with measured ones as `Measured`."""
    return {name: _decode(value) for name, value in record["quantities"].items()}


def _decode(value: Any) -> Any:
    if not (isinstance(value, dict) and value.keys() == {"what", "effect", "ci95", "n"}):
        return value
    return Measured(value["what"], value["effect"], tuple(value["ci95"]), value["n"])


def save(record: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write a record to its file, and return the file."""
    file = folder / f"{record['id']}.json"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    return file


def load(name: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """Return the record of a finding; None if there is none."""
    file = folder / f"{name}.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else None
