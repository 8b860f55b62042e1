"""Figures of findings: quantities with their intervals, as rows or against a number."""

from collections.abc import Mapping

from matplotlib.axes import Axes

from gradprix.claims import Measured
from gradprix.claims.cards import Row
from gradprix.show.claim_cards import rows_panel
from gradprix.show.figure import Chart, Panel, line_style
from gradprix.show.palette import style

WIDTH, HEIGHT = 560, 260


def interval_rows(
    name: str, title: str, rows: Mapping[str, Measured], reference: float | None = None, is_log: bool = False
) -> Chart:
    """Return a chart with a row for each quantity: a dot with its 95 % interval.

    Args:
        name: id of the finding.
        title: what the axis shows.
        rows: quantities by label, the first one on top.
        reference: value of no effect, drawn as a dashed line.
        is_log: use a logarithmic axis.
    """
    data = [Row(label, m.effect, m.ci95) for label, m in rows.items()]
    return Chart(name, title, (rows_panel(title, data, reference, is_log, WIDTH),))


def interval_lines(
    name: str,
    title: str,
    axes_labels: tuple[str, str],
    lines: Mapping[str, Mapping[float, Measured]],
    is_log: tuple[bool, bool] = (True, False),
) -> Chart:
    """Return a chart with a line for each series, and the 95 % intervals as bars.

    Args:
        name: id of the finding.
        title: what the figure shows.
        axes_labels: labels of the horizontal and the vertical axis.
        lines: series by name; an optimizer's name gives its colour. Each maps numbers to quantities.
        is_log: True for each axis that is logarithmic.
    """

    def draw(axes: Axes) -> None:
        for series, points in lines.items():
            properties, places = line_style(style(series)), list(points)
            values = [points[x].effect for x in places]
            axes.plot(places, values, marker="o", label=series, **properties)
            axes.vlines(places, *zip(*(points[x].ci95 for x in places), strict=True), color=properties["color"])
        axes.set_xscale("log" if is_log[0] else "linear")
        axes.set_yscale("log" if is_log[1] else "linear")
        ticks = sorted({x for points in lines.values() for x in points})
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
        axes.set(xlabel=axes_labels[0], ylabel=axes_labels[1])
        if len(lines) > 1:
            axes.legend(frameon=False)

    alt = "; ".join(
        f"{series}: " + ", ".join(f"{x:g} {m:.3g}" for x, m in points.items()) for series, points in lines.items()
    )
    panel = Panel(draw, width=WIDTH, height=HEIGHT, margins=(64, 14, 8, 44), alt=f"{title}: {alt}")
    return Chart(name, title, (panel,))
