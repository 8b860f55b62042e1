"""Results of the committed suite as Markdown."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from gradprix.show import EVIDENCE
from gradprix.show._evidence import evidence
from gradprix.show._formatting import format_factor
from gradprix.show.terminal import value
from gradprix.utils.wording import format_list


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def plain(text: str) -> str:
    """Escape the characters that are special in Markdown."""
    return re.sub(r"([*_<>`\[\]])", r"\\\1", text)


def sentences(file: Path = EVIDENCE) -> str:
    """Return the results of the suite as a list of sentences."""
    return "\n".join(f"* {sentence}" for sentence in evidence(file)["text"])


def made_by(file: Path = EVIDENCE) -> str:
    """Return the command, the machine and the duration."""
    summary = evidence(file)
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    runs = sum((task["trials"] + task["seeds"]) * len(task["means"]) for task in summary["tasks"].values())
    machine = f"{summary['machine']['cores']} cores ({summary['machine']['cpu']}; {versions})"
    return (
        f"`{summary['command']}`: {len(summary['entries'])} optimizers on {len(summary['tasks'])} problems, "
        f"{runs:,} training runs, {summary['seconds'] / 60:.0f} minutes on {machine}. "
        "Results as data: `src/gradprix/show/evidence.json`."
    )


def by_problem(file: Path = EVIDENCE) -> str:
    """Return a table with a row per problem: leaders, the one with the best mean, and regret of the others."""
    rows = []
    for name, task in evidence(file)["tasks"].items():
        ranking = sorted(task["means"], key=task["regrets"].__getitem__)
        leaders, others = ([e for e in ranking if (e in task["leads"]) == leads] for leads in (True, False))
        behind = [f"{e} ({task['regrets'][e]:.1f}{', too variable' * (e in task['vague'])})" for e in others]
        best = leaders[0]
        rows.append(
            (
                f"`{name}`",
                format_list(leaders),
                f"{best}, {task['rates'][best]:g}",
                f"{value(task['metric'], task['means'][best])} ({value(task['metric'], task['trivial'])})",
                ", ".join(behind) or "none",
            )
        )
    head = (
        "problem",
        "leaders",
        "best mean, learning rate",
        "its mean (chance level)",
        "others (margins behind the best)",
    )
    return table(head, rows)


def choices(file: Path = EVIDENCE) -> str:
    """Return a table with a row per optimizer: tasks that it leads, and its regret as the only choice for all tasks."""
    summary = evidence(file)
    tasks = summary["tasks"]
    rows = []
    for entry in summary["entries"]:
        leads = [name for name, task in tasks.items() if entry in task["leads"]]
        defaults = summary["defaults"][entry]
        single = summary["single"][entry]
        windows = sorted(task["windows"][entry] for task in tasks.values())
        rows.append(
            (
                f"`{entry}`",
                f"{len(leads)} of {len(tasks)}",
                f"{single['mean']:.1f}",
                f"{single['most']:.1f}",
                f"{sum(defaults.values())} of {len(defaults)}" if defaults else "–",
                format_factor(windows[len(windows) // 2]),
                str(sum(task["diverged"][entry] for task in tasks.values())),
            )
        )
    head = (
        "optimizer",
        "leads on",
        "mean regret",
        "largest regret",
        "default suffices on",
        "learning-rate tolerance (median)",
        "diverged runs",
    )
    return table(head, rows)
