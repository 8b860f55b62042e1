"""Measurements of clusters as Markdown, from the result files of the benchmarks."""

import json
from pathlib import Path

from suite_docs import table

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "benchmarks" / "cluster.json"
SCALE = ROOT / "benchmarks" / "scale.json"


def format_source(record: dict) -> str:
    """Format the command, the machine and the versions."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    machine = record["machine"]
    return f"`{record['command']}`, {machine['cores']} cores ({machine['cpu']}), {versions}."


def overhead(file: Path = CLUSTER) -> str:
    """Return the durations of races with and without Ray on one machine."""
    record = json.loads(file.read_text())
    rows = [
        (f"`{name}`", f"{min(row['local']):.1f} s", f"{min(row['ray']):.1f} s", f"{row['of_best']:.2f}×")
        for name, row in record["tasks"].items()
    ]
    head = ("task", "without Ray, best", "on a running Ray, best", "ratio")
    return f"{table(head, rows)}\n\n{format_source(record)}"


def scale(file: Path = SCALE) -> str:
    """Return the utilization of simulated large clusters."""
    record = json.loads(file.read_text())
    rows = [
        (
            name,
            f"{play['workers']:,}",
            f"{play['busy']:.1%}",
            f"{play['least_busy']:.1%}",
            f"{play['over']:.2f}×",
            f"{play['lost']:.1%}",
        )
        for name, play in record["played"].items()
    ]
    head = ("scenario", "workers", "busy", "minimum busy", "time relative to the ideal", "work lost")
    about = (
        f"{record['races']} races with {record['trials']:,} training runs in total, except in the rows of a single "
        "race (*alone*). *Busy* is the share of workers with a stack during the first 95 % of the "
        "time, *minimum busy* the smallest share in any hundredth of the time. The ideal is the total work at the most "
        "efficient stack width, divided by the number of workers, with no phase waiting for another."
    )
    return f"{table(head, rows)}\n\n{about} {format_source(record)}"
