"""Terminal output of plans, results and tables."""

from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from gradprix.race import ENTRIES, REPORT, RaceRecord, Result
from gradprix.tasks import ALL, built_in
from gradprix.tasks.registry import MAKERS
from gradprix.text.answer import format_failures, format_protocol
from gradprix.text.diagnosis import format_finding
from gradprix.text.execution import format_execution_mode
from gradprix.utils.streams import results

from ._evidence import evidence, first_choices
from ._formatting import (
    format_distance,
    format_factor,
    format_margin,
    format_mean,
    format_setting,
    format_tolerance,
)
from ._sections import format_tuning_variance
from .plans import make_table


def console(stderr: bool = False) -> Console:
    """Create a Rich console. If the output is redirected, it is so wide that lines are not wrapped.

    Args:
        stderr: write to stderr instead of stdout.
    """
    file = None if stderr else results()
    terminal = Console(highlight=False, stderr=stderr, file=file)
    return terminal if terminal.is_terminal else Console(highlight=False, stderr=stderr, file=file, width=200)


def answer(result: Result) -> RenderableType:
    """Return the summary of a race: answer, protocol, duration, path of the report, and table of results."""
    record = result.record
    where = f"  Report: {result.folder / REPORT}" if result.folder else ""
    last = f"{format_protocol(record)}, {record.cost.seconds:.0f} s.{where}"
    return Group(Text(result.text), Text(last), Text(), standings(record), *notes(record), *reasons(record))


def standings(record: RaceRecord) -> Table:
    """Return the table of results, with a row for each entry, best mean first."""
    tuned = "learning\nrate" if record.plan.tunes_learning_rate_only else "tuned"
    table = make_table("", record.plan.metric.name, "at most\nbehind", tuned, "tolerance", right=(1, 2, 3, 4))
    for entry in record.ranking:
        table.add_row(
            Text(entry.name, "bold" if entry.is_leader else ""),
            format_mean(record, entry),
            format_distance(record, entry.bound),
            Text(format_setting(entry.tuned)),
            format_tolerance(entry),
        )
    return table


def notes(record: RaceRecord) -> list[Text]:
    """Return the notes to print below the table of results."""
    name, margin = record.plan.metric.name.removeprefix("test "), format_margin(record.plan.metric)
    lines = ["In bold: the leaders. At most behind: 95 % upper bound of the distance from the best of the others."]
    if any(entry.tolerance for entry in record.entries):
        lines.append(
            f"Tolerance: learning rates whose validation {name} is within the margin, {margin}, of the entry's best."
        )
    lines += filter(None, [format_tuning_variance(record)])
    edge = [f"{entry.name} ({', '.join(entry.tuning.edges)})" for entry in record.entries if entry.tuning.at_edge]
    if edge:
        lines.append(f"Best value at the edge of the search range, so widen it: {', '.join(edge)}.")
    if not record.plan.tested:
        lines.append("The score is the one that tuning used, so it flatters. Yield a “test” score to avoid that.")
    lines += format_failures(record.failed)
    for entry in record.entries:
        if count := entry.final.diverged:
            lines.append(f"{entry.name} diverged on {count} of {record.budget.seeds} seeds, which score the baseline.")
    mode = record.plan.mode
    if not mode.stacked or mode.device != "cpu" or mode.device_rejection is not None:
        lines.append(format_execution_mode(mode))
    return [Text(line) for line in lines]


def reasons(record: RaceRecord) -> list[Text]:
    """Return the conclusions of the diagnosis, one line each, or an empty list if the race was not diagnosed."""
    if record.diagnosis is None:
        return []
    lines = [
        f"  {name}: {format_finding(measurement, record.entry(name).final.divergence_steps)}"
        for name, entry in record.diagnosis.entries.items()
        for measurement in entry.measurements
        if measurement.finding
    ]
    head = f"Why, from {record.diagnosis.runs} final runs of each:"
    return [Text(), Text(head), *map(Text, lines or ["  no clear cause found; the report has the numbers."])]


def value(metric: dict[str, Any], number: float) -> str:
    """Format a value of the metric.

    Args:
        metric: description of the metric in `evidence.json`.
        number: value to format.
    """
    return f"{100 * number:.1f} %" if metric["percent"] else f"{number:.4g}"


def optimizers() -> RenderableType:
    """Return the table of all optimizers that can be raced by name."""
    table = make_table("name", "class", "what it does", "learning rates")
    for entry in ENTRIES.values():
        fixed = "".join(f", {name}={setting}" for name, setting in entry.fixed.items())
        batch = {None: "", 0: ", all examples at once"}.get(entry.batch_size, f", batch {entry.batch_size}")
        low, high = (entry.space["lr"].from_unit(share) for share in (0.0, 1.0))
        row = (entry.name, f"{entry.optimizer}{fixed}{batch}", entry.about, f"{low:g} to {high:g}")
        table.add_row(*row)
    return table


def choices(name: str) -> RenderableType:
    """Return optimizers to try first on a problem similar to a built-in task, with the results that support this."""
    text, rows = first_choices(name)
    metric = evidence()["tasks"][name]["metric"]
    head = ("", metric["name"], "margins behind", "learning rate", "tolerance", "diverged")
    table = make_table(*head, right=tuple(range(1, len(head))))
    for row in rows:
        table.add_row(
            Text(row["entry"], "bold" if row["leads"] else ""),
            value(metric, row["mean"]),
            f"{row['margins']:.1f}",
            f"{row['lr']:g}",
            format_factor(row["window"]),
            str(row["diverged"]),
        )
    return Group(*map(Text, text), Text(), table, Text("In bold: the leaders, which nothing wins against."))


def tasks() -> RenderableType:
    """Return the table of the built-in tasks."""
    table = make_table("name", "what it is", "judged by", "batch", "epochs", right=(3, 4))
    for name in MAKERS:
        task = built_in(name)
        about = task.about if name in ALL else f"{task.about} Yours: --data FOLDER."
        table.add_row(name, about, task.metric.name, str(task.batch_size), str(task.epochs))
    return table


def suite(summary: dict[str, Any], page: Path) -> RenderableType:
    """Return the summary of a suite: its conclusions, and the regret of each optimizer (row) on each task (column).

    Args:
        summary: contents of `suite.json`.
        page: path of the HTML page.
    """
    names = list(summary["tasks"])
    table = make_table("margins behind the best", "mean", *names, right=tuple(range(1, len(names) + 2)))
    for entry in summary["entries"]:
        regrets = {name: f"{task['regrets'][entry]:.1f}" for name, task in summary["tasks"].items()}
        leads = [entry in task["leads"] for task in summary["tasks"].values()]
        cells = [f"[bold]{x}[/]" if lead else x for x, lead in zip(regrets.values(), leads, strict=True)]
        table.add_row(entry, f"{summary['single'][entry]['mean']:.1f}", *cells)
    lines = [*summary["text"], f"Page: {page}"]
    return Group(*map(Text, lines), Text(), table, Text("In bold: the leaders of each task."))
