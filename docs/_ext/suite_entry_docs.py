"""The published suite, and the measurements behind comparisons with it, as Markdown."""

import json
from pathlib import Path

from suite_docs import table

from gradprix.race import load_published, suite_entry_plans

STUDY = Path(__file__).resolve().parents[2] / "studies" / "suite_entry.json"


def published_tasks() -> str:
    """Return a table with a row for each published task."""
    rows = []
    for name, task in load_published().items():
        (plan,) = suite_entry_plans("adam", name)
        share = f"{100 * plan.runs / task.runs:.1f} %"
        rows.append((f"`{name}`", str(len(task.entries)), f"{task.trials} + {task.seeds}", share))
    return table(("published task", "optimizers", "your tuning trials + final seeds", "your share of all runs"), rows)


def measurements(file: Path = STUDY) -> str:
    """Return the effect of rounding and the share of false claims, as tables with their command."""
    if not file.exists():
        return f"`python studies/{file.stem}.py` measures the effect of rounding and the share of false claims."
    study = json.loads(file.read_text())
    return f"Measured by `{study['command']}`."
