"""What the documentation says of the committed suite, made from its file; every function returns Markdown."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from gradprix.show import EVIDENCE
from gradprix.show._evidence import evidence
from gradprix.show._page import factor
from gradprix.show.terminal import value
from gradprix.text.answer import format_list


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def sentences(file: Path = EVIDENCE) -> str:
    """What the suite found, as a list."""
    return "\n".join(f"* {sentence}" for sentence in evidence(file)["text"])


def made_by(file: Path = EVIDENCE) -> str:
    """The command, the machine and the time it took."""
    found = evidence(file)
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    networks = sum((task["trials"] + task["seeds"]) * len(task["means"]) for task in found["tasks"].values())
    machine = f"{found['machine']['cores']} cores ({found['machine']['cpu']}; {versions})"
    return (
        f"`{found['command']}`: {len(found['entries'])} optimizers on {len(found['tasks'])} problems, {networks:,} "
        f"networks, {found['seconds'] / 60:.0f} minutes on {machine}. "
        "Results as data: `src/gradprix/show/evidence.json`."
    )


def by_problem(file: Path = EVIDENCE) -> str:
    """A row a problem: who leads, which to take first, at which rate, and what the others lose."""
    rows = []
    for name, task in evidence(file)["tasks"].items():
        trail = sorted((e for e in task["means"] if e not in task["leads"]), key=lambda e: task["regrets"][e])
        behind = [f"{e} ({task['regrets'][e]:.1f}{', varies' * (e in task['vague'])})" for e in trail]
        take = task["take"]
        rows.append(
            (
                f"`{name}`",
                format_list(task["leads"]),
                f"**{take}**, {task['rates'][take]:g}",
                f"{value(task['metric'], task['means'][take])} ({value(task['metric'], task['trivial'])})",
                ", ".join(behind) or "none",
            )
        )
    head = (
        "problem",
        "leading group",
        "take first, at rate",
        "its mean (trivial)",
        "the rest (margins behind the best)",
    )
    return table(head, rows)


def choices(file: Path = EVIDENCE) -> str:
    """A row an optimizer: how often it led, and what it would cost as the one choice for all."""
    found = evidence(file)
    tasks = found["tasks"]
    rows = []
    for entry in found["entries"]:
        leads = [name for name, task in tasks.items() if entry in task["leads"]]
        kept = found["defaults"][entry]
        single = found["single"][entry]
        windows = sorted(task["windows"][entry] for task in tasks.values())
        rows.append(
            (
                f"`{entry}`",
                f"{len(leads)} of {len(tasks)}",
                f"{single['mean']:.1f}",
                f"{single['most']:.1f}",
                f"{sum(kept.values())} of {len(kept)}" if kept else "–",
                factor(windows[len(windows) // 2]),
                str(sum(task["diverged"][entry] for task in tasks.values())),
            )
        )
    head = ("", "leads on", "mean regret", "largest", "default would do on", "near-best rates, median", "runs diverged")
    return table(head, rows)
