"""Page of a suite: combined results over tasks, with links to the report of each race."""

from html import escape

from gradprix.race import REPORT
from gradprix.utils.wording import format_count, format_list

from . import _page, _suite
from ._page import section
from ._report import SCRIPTS, figure
from ._suite import Summary

SECTIONS = {"tasks": "Tasks", "regrets": "Behind the best", "profile": "One choice for all", "reports": "Reports"}


def suite_page(summary: Summary) -> str:
    """Return the complete page as HTML.

    Args:
        summary: summary of a suite. Links assume that the page is saved beside the folders of the races.
    """
    first, *rest = summary["text"]
    number = len(summary["tasks"])
    links = [f'<li><a href="{escape(name)}/{REPORT}">{escape(name)}</a></li>' for name in summary["tasks"]]
    read_regrets = (
        "How far each mean is behind the best of its task, in margins: units of the smallest difference that matters "
        "there. Bold: the leaders, which nothing wins against. The smallest mean over tasks comes first."
    )
    read_profile = (
        "The share of tasks on which an optimizer is at most so many margins behind the best. Further up and further "
        f"left is better. Bands: 95&nbsp;% over {format_count(number, 'task')} drawn with replacement, for the best "
        f"{_suite.BANDS}; with so few tasks they are wide, and other tasks may rank otherwise."
    )
    body = [
        f"<h1>{format_list([escape(name) for name in summary['entries']])} on {format_count(number, 'task')}</h1>",
        f'<div class="answer"><p class="first">{escape(first)}</p>{"".join(f"<p>{escape(x)}</p>" for x in rest)}</div>',
        section("tasks", "Tasks", _suite.table(summary)),
        section("regrets", "Behind the best", figure("regrets", _suite.regrets(summary), read_regrets, 640)),
        section("profile", "One choice for all", figure("profile", _suite.profile(summary), read_profile, 560)),
        section("reports", "The report of each race", f"<ul>{''.join(links)}</ul>"),
    ]
    return _page.page(f"gradprix: {format_count(number, 'task')}", SECTIONS, SCRIPTS, "\n".join(body))
