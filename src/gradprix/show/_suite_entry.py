"""Presentation of a comparison of one optimizer with the published suite: terminal output and HTML page."""

from pathlib import Path
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from gradprix.race import SuiteComparison, TaskComparison
from gradprix.stats.verdict import PairVerdict
from gradprix.text.answer import format_code
from gradprix.text.suite_entry import (
    format_comparison,
    format_control,
    format_suite_entry,
    format_verdicts,
    verdict_on,
)
from gradprix.text.units import format_difference, format_value
from gradprix.utils.wording import format_count

from ._formatting import format_setting
from ._templates import render
from .tables import make_table

SHOWN = 8.0
"""Distance from the best, in margins, at which the background of a cell is darkest."""
FEW = 4
"""Number of names in a cell of the terminal's table."""


class PairCell(NamedTuple):
    """Cell of the table of comparisons.

    Args:
        verdict: verdict from the point of view of the new optimizer.
        lead: its mean lead over the published one, with its interval.
        is_clear: True unless the comparison is inconclusive.
    """

    verdict: str
    lead: str
    is_clear: bool


def suite_entry_answer(record: SuiteComparison, page: Path) -> RenderableType:
    """Return the result for the terminal: sentences, a row for each task, and the distance of each optimizer.

    Args:
        record: the comparison.
        page: path of the HTML page.
    """
    tasks = make_table("task", "mean", "rank", "at most\nbehind", "learning\nrate", "verdicts", right=(1, 2, 3, 4))
    for name, task in record.tasks.items():
        tasks.add_row(
            name,
            format_value(task.metric, task.final.mean),
            f"{task.rank} of {len(task.means)}",
            format_difference(task.metric, task.bound),
            format_setting(task.tuned),
            format_verdicts(task, FEW),
        )
    regrets = make_table("margins behind the best", "mean", "largest", right=(1, 2))
    for name, regret in record.regrets.items():
        style = "bold" if name == record.name else ""
        regrets.add_row(Text(name, style), f"{regret.mean:.1f}", f"{regret.largest:.1f}")
    lines = [*map(Text, format_suite_entry(record)), Text()]
    return Group(*lines, tasks, Text(), regrets, Text(), Text(f"Every comparison: {page}"))


def suite_entry_page(record: SuiteComparison) -> str:
    """Return the page of a comparison with the published suite as a self-contained HTML document."""
    known = dict.fromkeys(name for task in record.tasks.values() for name in task.means)
    names = [*record.regrets, *(name for name in known if name not in record.regrets)]  # the last ran on some tasks
    return render(
        "suite_entry.html.jinja",
        record=record,
        task_count=format_count(len(record.tasks), "task"),
        answer=format_suite_entry(record),
        texts={name: format_comparison(task) for name, task in record.tasks.items()},
        rows={name: _format_task(task) for name, task in record.tasks.items()},
        codes={name: format_code(task.best, task.tuned) for name, task in record.tasks.items()},
        controls={name: format_control([task]) for name, task in record.tasks.items()},
        regrets={name: _format_regrets(record, name) for name in names},
        pairs={name: _format_pairs(record, name) for name in names if name != record.name},
    )


def _format_task(task: TaskComparison) -> list[str]:
    """Format the cells of a task: mean, rank, bound, margin, tuned values, trials and seeds."""
    metric = task.metric
    return [
        metric.name,
        format_value(metric, task.final.mean),
        f"{task.rank} of {len(task.means)}",
        format_difference(metric, task.bound),
        format_difference(metric, task.margin),
        format_setting(task.tuned),
        f"{task.plan.trials} + {len(task.final.values)}",
        format_verdicts(task),
    ]


def _format_regrets(record: SuiteComparison, name: str) -> list[tuple[str, float]]:
    """Format the distance of an entry from the best of each task, in margins, with the opacity of the background."""
    cells = []
    for task in record.tasks.values():
        regret = task.regrets.get(name)
        shade = 0.0 if regret is None else 0.42 * min(1.0, max(0.0, (regret - 1) / (SHOWN - 1)))
        cells.append(("–" if regret is None else f"{regret:.1f}", round(shade, 3)))
    return cells


def _format_pairs(record: SuiteComparison, name: str) -> list[PairCell | None]:
    """Format the comparison with a published entry on each task; None where it did not run."""
    return [_format_pair(task, name) if name in task.means else None for task in record.tasks.values()]


def _format_pair(task: TaskComparison, other: str) -> PairCell:
    """Format a comparison from the point of view of the new optimizer."""
    pair = task.pair(other)
    sign = 1 if pair.a == task.name else -1
    low, high = sorted(sign * end for end in pair.ci95)
    lead, *ends = (_format_lead(task, x) for x in (sign * pair.difference, low, high))
    verdict = verdict_on(task, pair)
    return PairCell(verdict, f"{lead} ({' to '.join(ends)})", pair.verdict is not PairVerdict.INCONCLUSIVE)


def _format_lead(task: TaskComparison, lead: float) -> str:
    """Format a difference with its sign, in percentage points where the metric is a percentage."""
    text = f"{100 * lead:.2f}" if task.metric.percent else f"{lead:.3g}"
    return text.replace("-", "−") if float(text) else "0"
