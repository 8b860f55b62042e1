"""Committed records of the races of the published suite: one compressed file per task in `studies/suite`.

    from suite_records import suite_records
    record = suite_records()["digits"]   # a gradprix.race.RaceRecord

A record is complete but for two things that would make most of its size: learning curves have four significant digits,
and pictures of artifacts are left out. Everything else, such as the metric of each final run, is exact.
"""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from gradprix.race import RaceRecord
from gradprix.race.record_json import read_record, to_json
from gradprix.race.run_records import Curves
from gradprix.tasks import ALL

FOLDER = Path(__file__).with_name("suite")
SUFFIX = ".json.gz"
CURVE_DIGITS = 4
"""Significant digits of learning curves."""


def suite_records(folder: Path = FOLDER) -> dict[str, RaceRecord]:
    """Return the committed records, by name of the task, in the order of `gradprix.tasks.ALL`."""
    return {name: read_file(file) for name in ALL if (file := folder / f"{name}{SUFFIX}").exists()}


def suite_machine(folder: Path = FOLDER) -> dict[str, Any]:
    """Return the cores, CPU and operating system of the machine that ran the races.

    Raises:
        ValueError: if the races ran on different machines, or there are none.
    """
    machines = [_read(file)["machine"] for file in sorted(folder.glob(f"*{SUFFIX}"))]
    if not machines or any(machine != machines[0] for machine in machines):
        raise ValueError(f"{folder} must hold races of one machine, and holds those of {machines}.")
    machine: dict[str, Any] = machines[0]
    return machine


def read_file(file: Path) -> RaceRecord:
    """Read a record that `write_file` wrote."""
    return read_record(_read(file)["record"])


def write_file(record: RaceRecord, machine: Mapping[str, Any], file: Path) -> None:
    """Write a record with rounded curves and without pictures. The same record gives the same bytes, by the same zlib.

    Args:
        record: record of a race.
        machine: the machine that ran it; see `gradprix.utils.run_info`.
        file: path of the file; its folder is created if necessary.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine, "record": to_json(shorten(record))}, separators=(",", ":"))
    file.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def _read(file: Path) -> Any:
    return json.loads(gzip.decompress(file.read_bytes()))


def shorten(record: RaceRecord) -> RaceRecord:
    """Return a record with rounded learning curves and without the pictures of its artifacts."""
    curves = {name: _round_curves(each) for name, each in record.curves.items()}
    return replace(record, curves=curves, artifacts=replace(record.artifacts, pictures={}))


def _round_curves(curves: Curves) -> Curves:
    """Return learning curves with four significant digits."""
    names = ("train_loss", "valid_loss", "valid_metric")
    return replace(curves, **{name: tuple(map(_round_row, getattr(curves, name))) for name in names})


def _round_row(row: tuple[float, ...]) -> tuple[float, ...]:
    """Return numbers with four significant digits."""
    return tuple(float(np.format_float_scientific(x, CURVE_DIGITS - 1)) for x in row)
