"""Evidence for recommendations: the results of a suite of races, which are part of the package."""

import json
from pathlib import Path
from typing import Any

from gradprix.tasks import UnknownNameError
from gradprix.utils.wording import format_list

EVIDENCE = Path(__file__).with_name("evidence.json")
"""Path of the results, which `studies/suite.py` writes."""


def evidence(file: Path = EVIDENCE) -> dict[str, Any]:
    """Load the results of the suite, with the machine and the package versions that produced them.

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
        file: path of the results of a suite.

    Returns:
        Sentences with the recommendation and its origin, and a dictionary for each optimizer, best first. Its keys are
        `entry` (name), `leads` (True for leaders), `mean` (of the metric), `margins` (distance from the best, in
        margins), `lr` (tuned learning rate), `window` (learning-rate tolerance in decades), and `diverged` (number of
        diverged final runs).

    Raises:
        UnknownNameError: if the suite does not include the task.
        ValueError: if the file does not exist.
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
