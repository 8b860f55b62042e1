"""Results of a suite in sentences."""

from collections.abc import Mapping
from typing import Any

from gradprix.utils.wording import format_count, format_list


def format_suite(summary: Mapping[str, Any]) -> list[str]:
    """Return the sentences of a summary, each derived from its numbers."""
    tasks, single = summary["tasks"], summary["single"]
    best = summary["entries"][0]
    leads = {entry: [name for name, task in tasks.items() if entry in task["leads"]] for entry in summary["entries"]}
    most = max(map(len, leads.values()))
    often = [entry for entry in summary["entries"] if len(leads[entry]) == most]
    worst = max(tasks, key=lambda name: tasks[name]["regrets"][best])
    lines = [
        f"Most often among the leaders: {format_list(often)}, on {most} of {format_count(len(tasks), 'task')}.",
        f"Best single choice for all tasks: {best}, on average {single[best]['mean']:.1f} margins behind the best of "
        f"each task, at most {single[best]['most']:.1f} ({worst}).",
    ]
    for pair in summary["crossings"]:
        a, b = pair["a"], pair["b"]
        lines.append(
            f"{a} wins against {b} on {format_list(pair['a_wins'])}, {b} against {a} on {format_list(pair['b_wins'])}."
        )
    if not summary["crossings"]:
        lines.append(
            "No rank reversals: no two optimizers win against each other on different tasks (family-wise error rate "
            "5 % over all pairs of all tasks)."
        )
    ends = {entry: [name for name, task in tasks.items() if entry in task["ends"]] for entry in summary["entries"]}
    if any(ends.values()):
        each = [f"{entry} on {format_list(names)}" for entry, names in ends.items() if names]
        lines.append(f"Best learning rate at the edge of the grid, so that others may be better: {'; '.join(each)}.")
    defaults = summary["defaults"]
    good = {entry: sum(within_margin.values()) for entry, within_margin in defaults.items()}
    each = [f"{entry} {good[entry]} of {len(defaults[entry])}" for entry in summary["entries"] if defaults[entry]]
    if each:
        lines.append(
            f"Tasks on which the default learning rate is within the margin of the tuned one: {format_list(each)}."
        )
    return lines
