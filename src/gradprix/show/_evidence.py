"""Evidence for recommendations: the results of a suite of races, which are part of the package."""

import json
from pathlib import Path
from typing import Any

from gradprix.tasks import UnknownNameError
from gradprix.text.units import format_duration
from gradprix.utils.wording import format_choice, format_list

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
    leaders, metric, best = task["leads"], task["metric"]["name"], rows[0]["entry"]
    lead = f"Use {leaders[0]}, the only leader by {metric}."
    if leaders[1:]:
        lead = (
            f"Use {format_choice(leaders)}: the leaders by {metric}, with no significant difference among them. "
            f"{best} has the best mean"
        )
        widest = max(leaders, key=lambda entry: round(task["windows"][entry], 1))
        wide = round(task["windows"][widest], 1)
        widest = best if round(task["windows"][best], 1) == wide else widest
        lead += f"{' and' if widest == best else f', {widest}'} the widest learning-rate tolerance."
    vague = f" {format_list(task['vague'])}: too variable to rank, though far behind." if task["vague"] else ""
    ends = f" Best learning rate at the edge of the search range: {format_list(task['ends'])}." if task["ends"] else ""
    cpu = suite["machine"]["cpu"]
    text = [
        f"{name}: {task['about']}",
        f"{lead}{vague}{ends}",
        f"Raced by {suite['command']}: {task['trials']} trials + {task['seeds']} held-out seeds each, learning rate "
        f"only, {format_duration(task['seconds'])} ({cpu}, torch {suite['versions']['torch']}).",
        "One model, one data set, one budget: where yours differs, race them on it: gradprix race mine.py:task",
    ]
    return text, rows
