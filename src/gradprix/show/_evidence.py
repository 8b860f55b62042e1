"""Evidence from the committed suite: leaders, learning rates and regrets on one problem."""

import json
from pathlib import Path
from typing import Any

from gradprix.tasks import UnknownNameError
from gradprix.utils.wording import format_list

EVIDENCE = Path(__file__).with_name("evidence.json")
"""Output of `studies/suite.py`."""


def evidence(file: Path = EVIDENCE) -> dict[str, Any]:
    """Load the summary of the committed suite, with the machine and versions that produced it.

    Raises:
        ValueError: if the file does not exist.
    """
    if not file.exists():
        raise ValueError("there is no suite of all tasks to tell from: python studies/suite.py makes it.")
    summary: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return summary


def first_choices(name: str, file: Path = EVIDENCE) -> tuple[list[str], list[dict[str, Any]]]:
    """Recommend optimizers for a problem similar to one of the tasks.

    Args:
        name: name of the task.
        file: summary of a suite.

    Returns:
        Sentences, and a row per optimizer, best first: `entry`, `leads`, `mean`, `margins` behind the best, tuned
        `lr`, `window` (learning-rate tolerance in decades), `diverged` (number of final seeds).

    Raises:
        UnknownNameError: if the suite does not include the task.
        ValueError: if the summary does not exist.
    """
    suite = evidence(file)
    if name not in suite["tasks"]:
        raise UnknownNameError("problem in the suite", name, suite["tasks"])
    task = suite["tasks"][name]
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
        for entry in sorted(suite["entries"], key=lambda entry: task["regrets"][entry])
    ]
    lead = (
        f"{format_list(task['leads'])} lead, with no significant difference among them,"
        if task["leads"][1:]
        else f"{task['leads'][0]} leads"
    )
    vague = f" {format_list(task['vague'])}: too variable to rank, though far behind." if task["vague"] else ""
    ends = f" Best learning rate at the edge of the search range: {format_list(task['ends'])}." if task["ends"] else ""
    cpu = suite["machine"]["cpu"]
    text = [
        f"{name}: {task['about']}",
        f"{lead} by {task['metric']['name']}; recommended: {task['take']}.{vague}{ends}",
        f"Raced by {suite['command']}: {task['trials']} trials + {task['seeds']} held-out seeds each, learning rate "
        f"only, {task['seconds'] / 60:.1f} minutes ({cpu}, torch {suite['versions']['torch']}).",
        "One model, one data set, one budget: where yours differs, race them on it: gradprix race mine.py:task",
    ]
    return text, rows
