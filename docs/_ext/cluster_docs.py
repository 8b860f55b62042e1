"""What the documentation says of clusters, made from benchmarks' files; every function returns Markdown."""

import json
from pathlib import Path

from suite_docs import table

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "benchmarks" / "cluster.json"
SCALE = ROOT / "benchmarks" / "scale.json"


def made(record: dict) -> str:
    """The command, the machine and the versions."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    machine = record["machine"]
    return f"`{record['command']}`, {machine['cores']} cores ({machine['cpu']}), {versions}."


def overhead(file: Path = CLUSTER) -> str:
    """Whole races on a warm Ray of the same machine against those without it."""
    record = json.loads(file.read_text())
    rows = [
        (f"`{name}`", f"{min(row['local']):.1f} s", f"{min(row['ray']):.1f} s", f"{row['of_best']:.2f}×")
        for name, row in record["tasks"].items()
    ]
    head = ("a whole race on", "by itself, best", "on a warm Ray, best", "ratio")
    return f"{table(head, rows)}\n\n{made(record)}"


def scale(file: Path = SCALE) -> str:
    """Races played on clusters that nobody here has."""
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
    head = ("", "workers", "busy", "at least", "time against the ideal", "work lost")
    about = (
        f"{record['races']} races of {record['trials']:,} networks in all, but for the rows of one race. *Busy* is the "
        "share of workers that are at a lane over the first 95 % of the time, *at least* the least of it in any "
        "hundredth of the time. The ideal is all work at the width at which a network takes least, divided by the "
        "workers, with no stage waiting for another."
    )
    return f"{table(head, rows)}\n\n{about} {made(record)}"
