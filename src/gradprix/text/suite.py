"""Results of a suite, in sentences."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gradprix.utils.wording import format_count, format_list

if TYPE_CHECKING:
    from gradprix.race.suite_record import SuiteSummary


def format_suite(summary: "SuiteSummary") -> list[str]:
    """Return the conclusions of a suite as a list of sentences.

    They name the entries that lead most often, the best single choice for all tasks, rank reversals between tasks,
    tuned learning rates at the edge of the search range, and tasks on which the default learning rate suffices.
    """
    tasks, best = summary.tasks, summary.entries[0]
    counts = {entry: sum(entry in task.leaders for task in tasks.values()) for entry in summary.entries}
    most = max(counts.values())
    often = [entry for entry, count in counts.items() if count == most]
    worst, regret = max(tasks, key=lambda name: tasks[name].regrets[best]), summary.regrets[best]
    lines = [
        f"Most often among the leaders: {format_list(often)}, on {most} of {format_count(len(tasks), 'task')}.",
        f"Best single choice for all tasks: {best}, on average {regret.mean:.1f} margins behind the best of "
        f"each task, at most {regret.largest:.1f} ({worst}).",
    ]
    for pair in summary.reversals:
        a, b = pair.a, pair.b
        lines.append(
            f"{a} wins against {b} on {format_list(pair.a_wins)}, {b} against {a} on {format_list(pair.b_wins)}."
        )
    if not summary.reversals:
        lines.append(
            "No rank reversals: no two optimizers win against each other on different tasks (family-wise error rate "
            "5 % over all pairs of all tasks)."
        )
    edges = {entry: [name for name, task in tasks.items() if entry in task.at_edge] for entry in summary.entries}
    if any(edges.values()):
        each = [f"{entry} on {format_list(names)}" for entry, names in edges.items() if names]
        lines.append(f"Best learning rate at the edge of the grid, so that others may be better: {'; '.join(each)}.")
    within_margin = {entry: summary.defaults[entry].values() for entry in summary.entries}
    each = [f"{entry} {sum(tasks)} of {len(tasks)}" for entry, tasks in within_margin.items() if tasks]
    if each:
        lines.append(
            f"Tasks on which the default learning rate is within the margin of the tuned one: {format_list(each)}."
        )
    return lines


def format_regrets_title(summary: Mapping[str, Any]) -> str:
    """Name the entry with the smallest mean regret, and its largest regret.

    Args:
        summary: contents of `suite.json`.
    """
    best = summary["entries"][0]
    regrets = {name: task["regrets"][best] for name, task in summary["tasks"].items()}
    worst = max(regrets, key=regrets.__getitem__)
    mean = sum(regrets.values()) / len(regrets)
    return (
        f"{best} is {mean:.1f} margins behind the best of a task on average, the least of all, and at most "
        f"{regrets[worst]:.1f} ({worst})."
    )


def format_profile_title(summary: Mapping[str, Any]) -> str:
    """Name the entries that are within one margin of the best on the most tasks.

    Args:
        summary: contents of `suite.json`.
    """
    tasks = list(summary["tasks"].values())
    counts = {entry: sum(task["regrets"][entry] <= 1 for task in tasks) for entry in summary["entries"]}
    most = max(counts.values())
    names = [entry for entry, count in counts.items() if count == most]
    verb = "is" if len(names) == 1 else "are"
    return f"{format_list(names)} {verb} within one margin of the best on {most} of {format_count(len(tasks), 'task')}."
