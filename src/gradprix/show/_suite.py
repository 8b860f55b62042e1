"""Page of a suite: results combined over tasks, with links to the report of each race."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from gradprix.race import REPORT
from gradprix.text.suite import format_profile_title, format_regrets_title
from gradprix.utils.wording import format_count, format_list

from ._formatting import format_seconds
from ._svg import SOFT
from ._templates import render
from .axes import label_ends, label_width, percent_axis
from .figure import Chart, Panel, line_style, tag
from .palette import styles

Summary = Mapping[str, Any]
SHOWN = 8.0
"""Largest regret, in margins, on the axis of the performance profiles and of the shades of the table."""
BANDS, COLOURED = 2, 5
"""Number of entries, the best ones, for which bands are drawn, and of those whose lines are coloured."""


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


def regrets(summary: Summary) -> dict[str, list[RegretCell]]:
    """Return the regret, in margins, of each entry on each task: a list of cells for each entry, by its name."""
    return {
        entry: [
            RegretCell(
                f"{task['regrets'][entry]:.1f}",
                entry in task["leads"],
                round(0.42 * min(1.0, max(0.0, (task["regrets"][entry] - 1) / (SHOWN - 1))), 3),
            )
            for task in summary["tasks"].values()
        ]
        for entry in summary["entries"]
    }


def profile(summary: Summary) -> Chart:
    """Draw performance profiles: the share of tasks on which an entry is at most x margins behind the best."""
    right = 14 + label_width(summary["entries"])
    panel = Panel(partial(_draw_profile, summary), "share of tasks", height=300, margins=(56, right, 30, 44))
    return Chart("profile", format_profile_title(summary), (panel,))


def _draw_profile(summary: Summary, axes: Axes) -> None:
    """Draw the profiles, the coloured ones on top, with the names at the right."""
    margins, looks = summary["profile"]["margins"], styles(summary["entries"])
    shown = [x for x in margins if x <= SHOWN]
    axes.set_xlim(0, SHOWN)
    axes.set_ylim(0, 103)
    axes.set_xlabel("at most so many margins behind the best")
    percent_axis(axes.yaxis, True)
    ends: list[tuple[float, str, str]] = []
    for i, entry in reversed(list(enumerate(summary["entries"]))):
        curve, is_quiet = summary["profile"]["entries"][entry], i >= COLOURED
        share, low, high = ([100 * y for y in curve[key][: len(shown)]] for key in ("share", "low", "high"))
        if i < BANDS:
            band = axes.fill_between(shown, low, high, step="post", color=looks[entry].colour, alpha=0.12, lw=0)
            tag(band, entry)
        (line,) = axes.plot(shown, share, drawstyle="steps-post", **line_style(looks[entry], is_quiet))
        tag(line, entry, f"{entry}: within one margin on {_share_within(curve, margins):.0f} % of tasks")
        ends.insert(0, (share[-1], entry, SOFT if is_quiet else looks[entry].colour))
    label_ends(axes, ends)


def _share_within(curve: Mapping[str, Any], margins: Sequence[float]) -> float:
    """Return the percentage of tasks on which an entry is at most one margin behind the best."""
    return float(100 * next(y for x, y in reversed([*zip(margins, curve["share"], strict=True)]) if x <= 1))


def suite_page(summary: Summary) -> str:
    """Return the page of a suite as a self-contained HTML document.

    Args:
        summary: contents of `suite.json`. Links to reports are relative: the page must be saved in the parent folder of
            the folders of the races.
    """
    text, count = summary["text"], max(1, len(summary["crossings"]))
    return render(
        "suite.html.jinja",
        summary=summary,
        answer=[*text[:2], *text[2 + count :]],
        reversals=text[2 : 2 + count],
        task_count=format_count(len(summary["tasks"]), "task"),
        rows={name: _format_task(task) for name, task in summary["tasks"].items()},
        regrets=regrets(summary),
        regrets_title=format_regrets_title(summary),
        profile=profile(summary),
        bands=BANDS,
        report_file=REPORT,
    )


def _format_task(task: Mapping[str, Any]) -> list[str]:
    """Format the cells of a task: metric, chance level, best mean, margin, leaders, recommendation, budget, time."""
    metric = task["metric"]
    best = max(task["means"].values()) if metric["higher_is_better"] else min(task["means"].values())
    return [
        metric["name"],
        _format_value(metric, task["trivial"]),
        _format_value(metric, best),
        _format_value(metric, task["margin"], sign=False),
        format_list(task["leads"]),
        task["take"],
        f"{task['trials']} + {task['seeds']}",
        format_seconds(task["seconds"]).replace(" ", "\u00a0"),
    ]


def _format_value(metric: Mapping[str, Any], number: float, sign: bool = True) -> str:
    """Format a value of the metric, with a percent sign if the metric is a percentage and `sign` is True."""
    return f"{100 * number:.1f}{' %' * sign}" if metric["percent"] else f"{number:.4g}"
