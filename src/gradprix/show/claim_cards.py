"""Claims as cards in an HTML page, for the app and the documentation."""

from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes

from gradprix.claims import VERDICTS, load_results
from gradprix.claims.cards import SIGNS, Card, Row, make_cards

from ._svg import INK, SOFT
from ._templates import render
from .axes import write_beside
from .figure import Chart, Panel, line_style
from .palette import COLOURS, style

WIDTH, ROW, LABELS, NUMBERS = 320, 24, 124, 56
"""Width of a figure, height of a row, and the space for the labels and for the numbers, in pixels."""


@cache
def claim_cards() -> Markup:
    """Return the committed results of all claims as cards with filters, as a fragment of an HTML page.

    The page needs the style sheets `page.css` and `claims.css` and the module `claims.js`, which are in
    `show/templates`. Without the script all cards are shown.

    Example:
        >>> "Adam needs no tuning" in claim_cards()
        True
    """
    cards = make_cards(load_results()["claims"])
    topics = [(topic, list(members)) for topic, members in groupby(cards, key=lambda card: card.topic)]
    names = sorted({name for card in cards for name in card.optimizers})
    counts = {verdict: sum(card.verdict == verdict for card in cards) for verdict in VERDICTS}
    text = render(
        "claim_cards.html.jinja",
        topics=topics,
        signs=SIGNS,
        counts=counts,
        optimizers=names,
        count=len(cards),
        draw=_draw,
        format_effect=format_effect,
        format_interval=format_interval,
    )
    return Markup(text)


def format_effect(effect: float | None) -> str:
    """Format an effect with three significant digits; None becomes a dash."""
    return "–" if effect is None else f"{'−' * (effect < 0)}{abs(effect):.3g}"


def format_interval(measured: dict[str, Any]) -> str:
    """Format the confidence interval of a measured quantity: `0.9 to 1.1`, or `exact`."""
    low, high = measured["ci95"]
    return "exact" if low == high else f"{format_effect(low)} to {format_effect(high)}"


def _draw(card: Card) -> Markup:
    """Return the figure of a card: a point with its interval for each quantity; empty if it has none."""
    if not card.rows:
        return Markup("")
    panel = rows_panel(card.axis, card.rows, card.reference, card.is_log)
    (svg,) = Chart(f"claim-{card.id}", card.axis, (panel,)).svgs()
    return svg


def rows_panel(
    title: str, rows: Sequence[Row], reference: float | None = None, is_log: bool = False, width: float = WIDTH
) -> Panel:
    """Return axes with a row for each quantity: a point with its confidence interval.

    Args:
        title: what the axis shows.
        rows: the quantities, the first one on top.
        reference: value that stands for no effect, drawn as a dashed line; None if there is none.
        is_log: use a logarithmic axis.
        width: width of the panel in pixels.
    """
    values = "; ".join(f"{row.label} {_format_row(row)}" for row in rows)
    return Panel(
        lambda axes: _draw_rows(axes, rows, reference, is_log),
        width=width,
        height=ROW * len(rows) + 34,
        margins=(LABELS, NUMBERS, 4, 30),
        alt=f"{title}: {values}",
    )


def _format_row(row: Row) -> str:
    interval = "" if row.ci95[0] == row.ci95[1] else f" ({format_effect(row.ci95[0])} to {format_effect(row.ci95[1])})"
    return f"{format_effect(row.effect)}{interval}"


def _draw_rows(axes: Axes, rows: Sequence[Row], reference: float | None, is_log: bool) -> None:
    if is_log:
        axes.set_xscale("log")
    if reference is not None:
        axes.axvline(reference, color=SOFT, linewidth=1, linestyle=(0, (3, 3)))
    for place, row in enumerate(rows):
        name = row.label.partition(",")[0].partition(" ")[0]
        properties: dict[str, Any] = line_style(style(name)) if name in COLOURS else {"color": INK}
        axes.plot(row.ci95, (place, place), color=properties["color"], linewidth=2.5, solid_capstyle="butt")
        axes.plot([row.effect], [place], "o", color=properties["color"], markersize=7)
        write_beside(axes, 1, place, format_effect(row.effect), name, xytext=(8, 0))
    ends = [end for row in rows for end in row.ci95]
    ends += [] if reference is None else [reference]
    _set_range(axes, min(ends), max(ends), is_log)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.minorticks_off()


def _set_range(axes: Axes, low: float, high: float, is_log: bool) -> None:
    """Set the horizontal range with a margin, and ticks at its ends."""
    if is_log:
        factor = (high / low) ** 0.08
        axes.set_xlim(low / factor, high * factor)
        ticks = [10.0**n for n in range(-6, 7) if low / factor <= 10.0**n <= high * factor] or [low, high]
    else:
        margin = 0.08 * (high - low) or 0.08 * abs(high) or 1.0
        axes.set_xlim(low - margin, high + margin)
        ticks = [low, high] if high > low else [low]
    axes.set_xticks(ticks, [format_effect(tick) for tick in ticks])
