"""Performance profiles of a suite as a figure: a few entries are coloured and named, the others are grey."""

from functools import partial

from matplotlib.axes import Axes

from gradprix.race.suite_record import SuiteSummary
from gradprix.text.suite import format_profile_title
from gradprix.utils.wording import format_list

from ._svg import GREY, PAGE
from .axes import percent_axis
from .figure import Chart, Panel, line_style, tag
from .lettering import MAX_NAME, fit
from .palette import styles

SHOWN = 4.0
"""Largest regret, in margins, on the axis of the performance profiles."""
COLOURED = 5
"""Largest number of entries whose lines are coloured."""


def profile(summary: SuiteSummary) -> Chart:
    """Draw performance profiles: the share of tasks on which an entry is at most x margins behind the best."""
    panel = Panel(partial(_draw_profile, summary), "share of tasks", height=320)
    others = [name for name in summary.entries if name not in highlighted(summary)]
    legend = f"Band: 95 % interval for {highlighted(summary)[0]}, over tasks drawn with replacement."
    legend += f" Grey: {format_list(others, most=len(others))}." if others else ""
    return Chart("profile", format_profile_title(summary), (panel,), legend=legend)


def highlighted(summary: SuiteSummary) -> list[str]:
    """Return the entries to colour: the best by each criterion over tasks, then those with the smallest mean regret."""
    best = summary.selections
    chosen = [each.entries[0] for each in (best.mean, best.largest, best.median, best.near, best.leading)]
    return list(dict.fromkeys([*chosen, *summary.complete]))[:COLOURED]


def _draw_profile(summary: SuiteSummary, axes: Axes) -> None:
    """Draw the profiles, the coloured ones on top, with a legend."""
    looks, coloured = styles(summary.entries), highlighted(summary)
    shown = [x for x in summary.profile.margins if x <= SHOWN]
    axes.set_xlim(0, SHOWN)
    axes.set_ylim(0, 103)
    axes.set_xlabel("at most so many margins behind the best")
    percent_axis(axes.yaxis, True)
    drawn = {}
    for entry in [*(name for name in summary.entries if name not in coloured), *reversed(coloured)]:
        curve, is_quiet = summary.profile.entries[entry], entry not in coloured
        share, low, high = ([100 * y for y in each[: len(shown)]] for each in (curve.share, curve.low, curve.high))
        if entry == coloured[0]:
            band = axes.fill_between(shown, low, high, step="post", color=looks[entry].colour, alpha=0.12, lw=0)
            tag(band, entry)
        look = {"color": GREY, "linewidth": 1.2, "alpha": 0.5} if is_quiet else line_style(looks[entry])
        (line,) = axes.plot(shown, share, drawstyle="steps-post", **look)
        within = max(y for x, y in zip(shown, share, strict=True) if x <= 1)
        tag(line, entry, f"{entry}: within one margin on {within:.0f} % of tasks")
        drawn[entry] = line
    lines = [drawn[entry] for entry in coloured]
    legend = axes.legend(lines, coloured, loc="lower right", handlelength=3, facecolor=PAGE, edgecolor="none")
    for text, entry in zip(legend.get_texts(), coloured, strict=True):
        text.set_text(fit(entry, MAX_NAME))
        text.set_color(looks[entry].colour)
        tag(text, entry)
