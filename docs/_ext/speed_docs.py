"""Tables of the benchmarks: steps against torch and other packages, and the cost of a race."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markdown_docs import table

ROOT = Path(__file__).resolve().parents[2]


STEP = ROOT / "benchmarks" / "step.json"
PEERS = ROOT / "benchmarks" / "peers.json"
RACE = ROOT / "benchmarks" / "race.json"


def _how_to_measure(script: str, duration: str) -> str:
    return (
        f"This repository contains no measurement yet. `python {script}` takes about {duration} on two cores, prints "
        "the ratios, and writes the file from which this table is generated."
    )


def _origin(record: Mapping[str, Any]) -> str:
    """Return the command, machine and versions of a measurement."""
    machine = record["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"`{record['command']}`, {machine['cores']} threads, {machine['cpu']}, {versions}."


def speed(file: Path = STEP) -> str:
    """Return tables of step times relative to torch, one per workload; without the file, how to measure them."""
    if not file.exists():
        return _how_to_measure("benchmarks/step.py", "five minutes")
    record = json.loads(file.read_text())
    parts = []
    for work in dict.fromkeys(row["work"] for row in record["rows"]):
        rows = [row for row in record["rows"] if row["work"] == work]
        others = [way for way in ("default", "foreach", "fused") if any(way in row["seconds"] for row in rows)]
        memory = any("memory" in row["seconds"] for row in rows)
        head = ["", "time per step", *(f"torch {way}" for way in others), *(["memory speed"] if memory else [])]
        lines = []
        for row in rows:
            times = row["seconds"]
            ratios = [f"{times[way] / times['ours']:.2f}×" if way in times else "–" for way in others]
            share = [f"{times['memory'] / times['ours']:.0%}" if "memory" in times else "–"] if memory else []
            lines.append((f"`{row['class']}`", f"{times['ours'] * 1e3:.3g} ms", *ratios, *share))
        parts.append(f"**{work}**\n\n{table(head, lines)}")
    first = record["first_call"]
    parts.append(
        f"First step of a new process with a cached kernel: {first['ours'] * 1e3:.0f} ms; first call of a "
        f"trivial cached Numba function: {first['trivial'] * 1e3:.0f} ms."
    )
    parts.append(_origin(record))
    return "\n\n".join(parts)


def peers(file: Path = PEERS) -> str:
    """Return tables of step times relative to other packages, one per workload; without the file, how to measure."""
    if not file.exists():
        return _how_to_measure("benchmarks/peers.py", "three minutes")
    record = json.loads(file.read_text())
    parts = []
    for work in dict.fromkeys(row["work"] for row in record["rows"]):
        rows = [row for row in record["rows"] if row["work"] == work]
        others = list(dict.fromkeys(name for row in rows for name in row["seconds"] if name != "ours"))
        lines = []
        for row in rows:
            times = row["seconds"]
            ratios = [f"{times[name] / times['ours']:.2f}×" if name in times else "–" for name in others]
            lines.append((f"`{row['class']}`", f"{times['ours'] * 1e3:.3g} ms", *ratios))
        parts.append(f"**{work}**\n\n{table(['', 'time per step', *others], lines)}")
    parts.append(_origin(record))
    return "\n\n".join(parts)


def price(file: Path = RACE) -> str:
    """Return the cost of a race relative to plain PyTorch loops; without the file, how to measure it."""
    if not file.exists():
        return "This repository contains no measurement yet. `python benchmarks/race.py` makes one, in half an hour."
    record = json.loads(file.read_text())
    lines = []
    for name, rows in record.items():
        if isinstance(rows, list) and "plain" in rows[0]:
            ratios = sorted(row["ratio"] for row in rows)
            row = next(row for row in rows if row["ratio"] == ratios[(len(rows) - 1) // 2])
            plain = [f"{1e3 * row['plain'][way]:.0f} ms" for way in ("one process", "a process a core")]
            race, rate = row["race"], f"{row['GFLOP/s']:.0f} of {row['of']:.0f}"
            speedup = f"{row['ratio']:.1f}×"
            spread = f" ({ratios[0]:.1f}–{ratios[-1]:.1f}×)" if len(rows) > 1 else ""
            lines.append(
                (name, *plain, f"{1e3 * race['a trial']:.0f} ms", f"{race['networks']:,}", speedup + spread, rate)
            )
    head = ["model", "one process", "one process per core", "in a race", "runs in the race", "speedup", "GFLOP/s"]
    about = f"`{record['command']}`, {record['machine']['cores']} cores, torch {record['versions']['torch']}"
    note = (
        "Times are per training run, first those of plain PyTorch loops. Speedup is relative to the faster of them. "
        "GFLOP/s counts the products of training steps, beside those of a large matrix product in the same run. Of "
        "several measurements, on processors of different speed, a row is the median, with the range of the speedup."
    )
    return f"{table(head, lines)}\n\n{about}. {note}"
