"""Terminal output of plans, results and tables."""

import re
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from gradprix.race import ENTRIES, REPORT, RaceRecord, Result
from gradprix.race.evidence import load_evidence
from gradprix.race.suite_record import SuiteSummary
from gradprix.tasks import ALL, UnknownNameError, built_in
from gradprix.tasks.registry import MAKERS
from gradprix.text.answer import format_failures, format_protocol
from gradprix.text.diagnosis import format_findings
from gradprix.text.execution import format_execution_mode
from gradprix.text.recommendation import format_place, recommended_group
from gradprix.text.suite import format_first_choice, format_similar_problem, format_suite
from gradprix.text.units import format_duration, format_factor, format_value
from gradprix.utils.console import SafeConsole
from gradprix.utils.streams import results

from ._formatting import (
    format_distance,
    format_margin,
    format_mean,
    format_setting,
)
from ._sections import format_tuning_variance
from .tables import listing, make_table

WIDEST = 100
"""Maximum width of the output in columns: longer lines of text are hard to read."""


def console(stderr: bool = False) -> Console:
    """Create a Rich console with the width of the terminal, but at most `WIDEST` columns.

    If the output is redirected, the width is that of the environment variable `COLUMNS`, or 80.

    Args:
        stderr: write to stderr instead of stdout.
    """
    made = SafeConsole(stderr=stderr, file=None if stderr else results())
    made.width = min(made.width, WIDEST)
    if not stderr and not made.is_terminal:
        made.file = cast(IO[str], UnpaddedStream(made.file))
    return made


class UnpaddedStream:
    """A text stream that removes spaces at the ends of lines, with which Rich fills them to the width of the output.

    Args:
        stream: the stream to write to. Each text must consist of whole lines, as Rich writes them.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text without the spaces at the ends of its lines."""
        self._stream.write(re.sub(" +$", "", text, flags=re.MULTILINE))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def answer(result: Result) -> RenderableType:
    """Return the summary of a race: answer, protocol, duration, path of the report, and table of results."""
    record = result.record
    where = f"  Report: {result.folder / REPORT}" if result.folder else ""
    last = f"{format_protocol(record)}, {format_duration(record.cost.seconds)}.{where}"
    return Group(Text(result.text), Text(last), Text(), standings(record), Text(), *notes(record), *reasons(record))


def standings(record: RaceRecord) -> RenderableType:
    """Return the table of results, with a row for each entry, best mean first.

    If more than the learning rate was tuned, the tuned values are listed below the table.
    """
    rate_only = record.plan.tunes_learning_rate_only
    head = ["", record.plan.metric.name, "at most\nbehind", "tolerance", *["learning\nrate"] * rate_only, ""]
    table = make_table(*head, right=tuple(range(1, len(head) - 1)))
    best = recommended_group(record) or record.verdict.leaders
    for entry in record.ranking:
        style = "bold" if entry.name in best else ""
        table.add_row(
            Text(entry.name, style),
            format_mean(record, entry),
            format_distance(record, entry.bound),
            format_factor(entry.tolerance_decades) if "lr" in entry.tuned else "-",
            *[format_setting(entry.tuned)] * rate_only,
            Text(format_place(record, entry), style, no_wrap=True, overflow="ellipsis"),
        )
    if rate_only:
        return table
    tuned = [((entry.name,), format_setting(entry.tuned)) for entry in record.ranking]
    return Group(table, Text(), listing(("tuned values, learning rate first",), tuned))


def notes(record: RaceRecord) -> list[Text]:
    """Return the notes to print below the table of results."""
    name, margin = record.plan.metric.name.removeprefix("test "), format_margin(record.plan.metric)
    lines = ["At most behind: upper bound of the distance from the best of the others. ± and bounds: 95 %."]
    if recommended_group(record):
        lines.append(f"Recommended: at most the margin, {margin}, behind the best.")
    if record.plan.baseline is None:
        lines.append("Leaders: no other wins against them.")
    lines = [" ".join(lines)]
    if any(entry.tolerance for entry in record.entries):
        lines.append(
            f"Tolerance: factor by which the learning rate can vary with the validation {name} within {margin} of its "
            "best; the report has the ends of the range."
        )
    lines += filter(None, [format_tuning_variance(record)])
    edge = [f"{entry.name} ({', '.join(entry.edges)})" for entry in record.entries if entry.edges]
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


def reasons(record: RaceRecord) -> list[RenderableType]:
    """Return the conclusions of the diagnosis, a paragraph each, or an empty list if the race was not diagnosed."""
    if record.diagnosis is None:
        return []
    conclusions = [f"{name}: {text}" if name else text for name, text in format_findings(record)]
    conclusions = conclusions or ["No significant cause. The report has the numbers."]
    head = f"Why, from {record.diagnosis.runs} final runs of each:"
    return [Text(), Text(head), *(Padding(Text(each), (0, 0, 0, 2)) for each in conclusions)]


def optimizers() -> RenderableType:
    """Return the list of all optimizers that can be raced by name."""
    rows = []
    for entry in ENTRIES.values():
        fixed = [f"{name}={setting}" for name, setting in entry.fixed.items()]
        fixed += {None: [], 0: ["all examples at once"]}.get(entry.batch_size, [f"batch {entry.batch_size}"])
        low, high = (entry.space["lr"].from_unit(share) for share in (0.0, 1.0))
        about = f"{entry.about} ({', '.join(fixed)})" if fixed else entry.about
        rows.append(((entry.name, entry.optimizer, f"{low:g} to {high:g}"), about))
    return listing(("name", "class", "learning rates"), rows)


def choices(name: str) -> RenderableType:
    """Return optimizers to try first on a problem similar to a built-in task, with the results that support this.

    Raises:
        UnknownNameError: if the published suite does not include the task.
    """
    evidence = load_evidence()
    if name not in evidence.tasks:
        raise UnknownNameError("problem in the suite", name, evidence.tasks)
    task = evidence.tasks[name]
    head = ("", task.metric.name, "margins behind", "at most", "learning rate", "tolerance")
    table = make_table(*head, right=tuple(range(1, len(head))))
    table.columns[0].no_wrap = True  # titles are broken before names are cut off
    for entry in sorted(task.regrets, key=task.regrets.__getitem__):
        table.add_row(
            Text(f"{entry} *", "bold") if entry in task.leaders else Text(entry),
            format_value(task.metric, task.means[entry]),
            f"{task.regrets[entry]:.1f}",
            f"{task.bounds[entry]:.1f}" if entry in task.bounds else "-",
            f"{task.learning_rates[entry]:g}" if entry in task.learning_rates else "-",
            format_factor(task.tolerances[entry]),
        )
    notes = ["*: leader, see above. At most: bound of the margins behind the best."]
    if diverged := [f"{count} of {entry}" for entry, count in task.diverged.items() if count]:
        notes.append(f"Final runs that diverged: {', '.join(diverged)}.")
    return Group(*map(Text, format_similar_problem(evidence, name)), Text(), table, Text(" ".join(notes)))


def tasks() -> RenderableType:
    """Return the list of the built-in tasks."""
    rows = []
    for name in MAKERS:
        task = built_in(name)
        about = task.about if name in ALL else f"{task.about} Yours: --data FOLDER."
        rows.append(((name, task.metric.name, str(task.batch_size), str(task.epochs)), about))
    return listing(("name", "metric", "batch", "epochs"), rows)


def suite(summary: SuiteSummary, page: Path) -> RenderableType:
    """Return the summary of a suite: its conclusions, what to use on each task, and the regret of each optimizer.

    Args:
        summary: summary of the suite.
        page: path of the HTML page, which has the regret of each optimizer on each task.
    """
    table = make_table("margins behind the best", "mean", "median", "largest", "on", "leads on", right=(1, 2, 3, 5))
    for entry in summary.entries:
        regret = summary.regrets[entry]
        leads = sum(entry in task.leaders for task in summary.tasks.values())
        numbers = (f"{regret.mean:.1f}", f"{regret.median:.1f}", f"{regret.largest:.1f}")
        table.add_row(entry, *numbers, regret.worst_task, f"{leads} of {regret.tasks}")
    choices = [f"{name}: {format_first_choice(task)}" for name, task in summary.tasks.items()]
    lines = [*format_suite(summary), "", *choices, ""]
    return Group(*map(Text, lines), table, Text(), Text(f"Regret on each task: {page}"))
