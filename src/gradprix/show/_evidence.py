"""What the committed suite says about one problem: who leads there, at which rates, how far the others are behind."""

import json
from pathlib import Path
from typing import Any

from gradprix.tasks import UnknownNameError
from gradprix.text.answer import listed

EVIDENCE = Path(__file__).with_name("evidence.json")
"""What `benchmarks/suite.py` wrote."""


def evidence(file: Path = EVIDENCE) -> dict[str, Any]:
    """The summary of the committed suite, with the machine and versions it was made by.

    Raises:
        ValueError: when there is none.
    """
    if not file.exists():
        raise ValueError("there is no suite of all tasks to tell from: python benchmarks/suite.py makes it.")
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


def first_choices(name: str, file: Path = EVIDENCE) -> tuple[list[str], list[dict[str, Any]]]:
    """Which optimizers to try first on a problem like one of the tasks.

    Args:
        name: the task.
        file: the suite that it is told from.

    Returns:
        Sentences, and a row for each optimizer, the best first: `entry`, `leads`, `mean`, `margins` behind the best,
        `lr` as tuned, `window` (how many decades of rates came near the best), `diverged` (of the final seeds).

    Raises:
        UnknownNameError: for a task that the suite has not raced.
        ValueError: when there is no suite.
    """
    found = evidence(file)
    if name not in found["tasks"]:
        raise UnknownNameError("problem in the suite", name, found["tasks"])
    task = found["tasks"][name]
    rows = [
        {
            "entry": entry,
            "leads": entry in task["leads"],
            "mean": task["means"][entry],
            "margins": task["regrets"][entry],
            "lr": task["rates"][entry],
            "window": task["windows"][entry],
            "diverged": task["diverged"][entry],
        }
        for entry in sorted(found["entries"], key=lambda entry: task["regrets"][entry])
    ]
    lead = f"{listed(task['leads'])} lead and were not told apart" if task["leads"][1:] else f"{task['leads'][0]} leads"
    vague = f" {listed(task['vague'])}: too erratic to be told from that, though far behind." if task["vague"] else ""
    ends = f" Best at the end of the rates tried: {listed(task['ends'])}." if task["ends"] else ""
    cpu = found["machine"]["cpu"]
    text = [
        f"{name}: {task['about']}",
        f"{lead} by {task['metric']['name']}; take {task['take']} first.{vague}{ends}",
        f"Raced by {found['command']}: {task['trials']} trials + {task['seeds']} fresh seeds each, learning rate only, "
        f"{task['seconds'] / 60:.1f} minutes ({cpu}, torch {found['versions']['torch']}).",
        "One network, one data set, one budget: where yours differs, race them on it: gradprix race mine.py:task",
    ]
    return text, rows
