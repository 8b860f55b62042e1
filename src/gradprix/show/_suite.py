"""Page of a suite: results combined over tasks, with links to the report of each race."""

from typing import NamedTuple

from gradprix.race import REPORT
from gradprix.race.suite_record import SuiteSummary, TaskSummary
from gradprix.text import suite_tables
from gradprix.text.suite import (
    format_recommendation,
    format_regrets_title,
    format_reversals,
    format_suite,
)
from gradprix.utils.wording import format_count

from ._suite_profile import highlighted, profile
from ._templates import render

DARKEST = 8.0
"""Regret, in margins, from which on the cells of the table have the darkest shade."""


class RegretCell(NamedTuple):
    """Cell of the table of regrets.

    Args:
        text: regret in margins.
        is_leader: True if no entry wins against this one.
        shade: opacity of the background, 0 for regrets of at most one margin.
    """

    text: str
    is_leader: bool
    shade: float


def regrets(summary: SuiteSummary) -> dict[str, list[RegretCell]]:
    """Return the regret, in margins, of each entry on each task: a list of cells for each entry, by its name."""
    return {entry: [_regret_cell(entry, task) for task in summary.tasks.values()] for entry in summary.entries}


def _regret_cell(entry: str, task: TaskSummary) -> RegretCell:
    """Return the cell of an entry on a task, on which it may not have raced."""
    if entry not in task.regrets:
        return RegretCell("–", False, 0.0)
    regret = task.regrets[entry]
    shade = round(0.42 * min(1.0, max(0.0, (regret - 1) / (DARKEST - 1))), 3)
    return RegretCell(f"{regret:.1f}", entry in task.leaders, shade)


def suite_page(summary: SuiteSummary) -> str:
    """Return the page of a suite as a self-contained HTML document.

    Links to reports are relative: the page must be saved in the parent folder of the folders of the races.
    """
    return render(
        "suite.html.jinja",
        summary=summary,
        answer=format_suite(summary),
        reversals=format_reversals(summary),
        task_count=format_count(len(summary.tasks), "task"),
        tables=suite_tables,
        regrets=regrets(summary),
        recommendation=format_recommendation(summary),
        regrets_title=format_regrets_title(summary),
        profile=profile(summary),
        highlighted=highlighted(summary),
        report_file=REPORT,
    )
