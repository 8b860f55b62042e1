"""The study of situations as Markdown: what works, what is stacked, and what is refused."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from suite_docs import plain, table

COMPATIBILITY = Path(__file__).resolve().parents[2] / "studies" / "compatibility.json"
KINDS = {
    "language": "Text and transformers",
    "vision": "Images, and models with several outputs",
    "tables": "Data sets, loaders, metrics and tables",
    "graphs": "Graphs",
    "options": "Training options",
    "loops": "Training loops and trainers",
}
"""Headings of the kinds of situations, in the order of the page."""


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the results of all situations that were measured."""
    return list(json.loads(file.read_text())["situations"].values())


def situations(file: Path = COMPATIBILITY) -> str:
    """Return a table of the situations of each kind, under a heading."""
    rows = [row for row in read_rows(file) if not row["mistake"]]
    parts = []
    for kind in dict.fromkeys([*KINDS, *(row["kind"] for row in rows)]):
        lines = [_format_row(row) for row in rows if row["kind"] == kind]
        if lines:
            head = ("situation", "works", "models are trained", "difference", "speedup of a stack", "of the race")
            parts.append(f"### {KINDS.get(kind, kind)}\n\n{table(head, lines)}")
    return "\n\n".join(parts)


def mistakes(file: Path = COMPATIBILITY) -> str:
    """Return a table of the mistakes and of the errors that they raise."""
    rows = [row for row in read_rows(file) if row["mistake"]]
    lines = [(row["title"], plain(row["error"]) if row["works"] else "not refused") for row in rows]
    return table(("situation", "error"), lines)


def made_by(file: Path = COMPATIBILITY) -> str:
    """Return the command and the versions."""
    record = json.loads(file.read_text())
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"`{record['command']}`, {versions}. Results as data: `studies/compatibility.json`."


def _format_row(row: Mapping[str, Any]) -> Iterable[str]:
    """Return the cells of a situation; a result that is missing is a dash."""
    if not row["works"]:
        return row["title"], "**no**", plain(row.get("error", "–")), "–", "–", "–"
    mode = "together, in a stack" if row["stacked"] else f"one at a time: {row['reason']}"
    difference = f"{row['difference']:.0e}" if row["difference"] else "0"
    return (
        row["title"],
        "yes",
        plain(mode),
        difference if row["difference"] <= row["tolerance"] else f"**{difference}**",
        *(f"{row[key]:.2g}×" if key in row else "–" for key in ("stack_speedup", "race_speedup")),
    )
