"""The published suite, and the measurements behind comparisons with it, as Markdown."""

import json
from pathlib import Path

from suite_docs import table

from gradprix.race import load_published, suite_entry_plans
from gradprix.race.control import ROUNDING_DEVIATION

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
    rounding, copies = [], []
    for name, task in study["tasks"].items():
        found, rows = task["rounding"], task["copies"]
        shift = f"{found['shift']:+.3f} ± {2 * found['standard error']:.3f}".replace("-", "−")
        numbers = (found["deviation of a run"], found["deviation over seeds"])
        share = f"{100 * found['share of runs that differ']:.0f} %"
        rounding.append((f"`{name}`", str(found["seeds"]), share, *(f"{x:.2f}" for x in numbers), shift))
        false = sum(row["false claim"] is not None for row in rows)
        copies.append((f"`{name}`", str(len(rows)), str(false), str(sum(row["claims"] for row in rows))))
    return "\n".join(
        [
            "The published optimizers ran again by PyTorch's own operations, which round otherwise everywhere. "
            "Differences are in margins; a shift is their mean over all optimizers, with two standard errors:\n",
            table(("task", "seeds", "runs that differ", "deviation of a run", "of seeds", "shift"), rounding),
            f"\nThe comparisons allow for a shift with a standard deviation of {ROUNDING_DEVIATION:g} margins.\n",
            "Copies of the published optimizers, with other tuning seeds, were entered as new ones, with final runs on "
            "the same other machine. A claim that a copy is better or worse than its own original is false:\n",
            table(("task", "copies", "false claims", "claims against all others"), copies),
            f"\n(`{study['command']}`)",
        ]
    )
