"""Figures of pages and for export: matplotlib with one style, as SVG that follows the page's theme, PNG or PDF.

A chart is a sentence with panels. Pages show each panel as an SVG of its own, so that the page arranges them for its
width. Exported images have all panels, the sentence as the title, and the settings as a footnote.

Colours are those of a light page. In an SVG they become variables of the page's style sheet, so that one image serves
light and dark pages. Artists that belong to an optimizer are marked by `tag`, for the page's script.
"""

import io
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ._svg import GREY, INK, LINE, PAGE, SOFT, page_svg
from .lettering import clean, fit, wrap
from .palette import Style, colour

UNIT = 72
"""Pixels per inch of a figure, so that a point is a pixel."""
RC: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": LINE,
    "axes.grid": True,
    "axes.labelcolor": SOFT,
    "axes.labelsize": 12,
    "axes.linewidth": 1,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "figure.dpi": UNIT,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 12,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 2,
    "lines.markersize": 6,
    "path.simplify_threshold": 0.2,
    "svg.fonttype": "none",
    "svg.hashsalt": "gradprix",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": LINE,
    "xtick.labelcolor": SOFT,
    "xtick.labelsize": 12,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.color": LINE,
    "ytick.labelcolor": SOFT,
    "ytick.labelsize": 12,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}
LINESTYLES = {"solid": "-", "dashed": (0, (5, 2)), "dashdot": (0, (6, 2, 1.5, 2)), "dotted": (0, (1.5, 1.5))}
"""Line style of matplotlib for each dash of the palette."""
MARKERS = {"circle": "o", "diamond": "D", "square": "s", "triangle": "^", "plus": "P"}
"""Marker of matplotlib for each marker of the palette."""
SCALE = 2.5  # pixels of a PNG per pixel of the page
EXPORT_WIDTH = 720
"""Minimum width of an exported image, in pixels of the page: a title and a footnote need so much."""
BORDER = 16
"""White border of an exported image, in pixels of the page."""


@dataclass(frozen=True)
class Panel:
    """Axes with their size, in pixels of the page, and the function that draws into them.

    Args:
        draw: function that draws into the axes.
        title: heading above the axes.
        width: width with margins. Pages enlarge or shrink panels to the width of their columns.
        height: height with margins.
        margins: space for labels at the left, right, top and bottom.
        alt: description for screen readers; the title when empty.
        entry: name of the entry that the panel is about; empty if there is none.
    """

    draw: Callable[[Axes], None]
    title: str = ""
    width: float = 400
    height: float = 280
    margins: tuple[float, float, float, float] = (56, 14, 30, 44)
    alt: str = ""
    entry: str = ""


@dataclass(frozen=True)
class Chart:
    """Figure of a page.

    Args:
        name: suffix of the ids in the page, and of the name of exported files.
        title: what the figure shows, as a sentence.
        panels: the panels, in reading order.
        columns: number of panels in a row of a wide page.
        legend: what dots, lines and axes are, in a line, for exported images: these have no page that explains them.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]
    columns: int = 1
    legend: str = ""

    def svgs(self) -> list[Markup]:
        """Return each panel as an SVG element for an HTML page."""
        return [
            page_svg(to_svg(draw_panels((each,), 1)), f"{self.name}-{i}", each) for i, each in enumerate(self.panels)
        ]


def tag(artist: Artist, entry: str, tips: str | Sequence[str] = "") -> None:
    """Mark an artist as an optimizer's, so that the page's script can highlight it and show its values.

    Args:
        artist: line, collection, patch or text.
        entry: name of the entry.
        tips: text that appears at the artist, or a text for each of its points, in their order.
    """
    artist.set_gid(json.dumps({"entry": entry, "tips": tips}))


def line_style(style: Style, is_quiet: bool = False) -> dict[str, Any]:
    """Return the properties of an optimizer's line: grey if it is quiet, until the reader points at it."""
    return {"color": GREY if is_quiet else style.colour, "linestyle": LINESTYLES[style.dash]}


def to_svg(figure: Figure) -> str:
    """Return a figure as the source of an SVG file, in the colours of a light page."""
    return _save(figure, "svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))).decode()


def export(chart: Chart, kind: str, note: str = "") -> bytes:
    """Return a chart as a file with a white background, with its sentence as the title and its legend below.

    Args:
        chart: the chart.
        kind: `"png"`, `"pdf"` or `"svg"`.
        note: footnote, such as the settings of a race.
    """
    columns = min(chart.columns, len(chart.panels))
    factor = max(1, EXPORT_WIDTH / sum(panel.width for panel in chart.panels[:columns]))
    panels = [replace(panel, width=factor * panel.width) for panel in chart.panels]
    figure = draw_panels(panels, columns, chart.title, [each for each in (chart.legend, note) if each], BORDER)
    figure.set_facecolor(PAGE)
    settings: dict[str, Any] = {"dpi": SCALE * UNIT} if kind == "png" else {"metadata": {"Creator": "gradprix"}}
    return _save(figure, kind, **settings)


def draw_panels(
    panels: Sequence[Panel], columns: int, title: str = "", notes: Sequence[str] = (), border: float = 0
) -> Figure:
    """Draw panels in a grid, below a title and above notes.

    Args:
        panels: the panels, in reading order.
        columns: number of panels in a row.
        title: text at the top.
        notes: texts at the bottom, which begin on lines of their own.
        border: space around everything, in pixels.
    """
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    inside = max(sum(panel.width for panel in row) for row in rows)
    width = inside + 2 * border
    head = wrap(title, inside - 4, 15, "bold")
    foot = [line for note in notes for line in wrap(note, inside - 4, 11)]
    above = 21 * len(head) + 16 * bool(head) + border / 2 * bool(head)
    below = 15 * len(foot) + 12 * bool(foot) + border / 2 * bool(foot)
    height = above + sum(max(panel.height for panel in row) for row in rows) + below
    with mpl.rc_context(RC):
        figure = Figure((width / UNIT, height / UNIT))
        top = height - above
        for row in rows:
            left = border
            for panel in row:
                before, after, over, under = panel.margins
                box = (left + before, top - panel.height + under, panel.width - before - after, 0.0)
                size = (box[2] / width, (panel.height - over - under) / height)
                axes = figure.add_axes((box[0] / width, box[1] / height, *size))
                shown = fit(panel.title, panel.width - 4, 13, "bold")
                heading = axes.set_title(shown, x=-(before - 2) / box[2], y=1)  # a given height is faster
                if panel.entry:
                    heading.set_color(colour(panel.entry))
                    tag(heading, panel.entry, (panel.alt or panel.title) if "…" in shown else "")
                panel.draw(axes)
                left += panel.width
            top -= max(panel.height for panel in row)
        for i, line in enumerate(head):
            y = 1 - (border / 2 + 20 + 21 * i) / height
            figure.text((border + 2) / width, y, clean(line), fontsize=15, weight="bold")
        for i, line in enumerate(foot):
            y = (border / 2 + 15 * (len(foot) - i) - 6) / height
            figure.text((border + 2) / width, y, clean(line), fontsize=11, color=SOFT)
    return figure


def _save(figure: Figure, kind: str, **settings: Any) -> bytes:
    """Return a figure as the contents of a file."""
    file = io.BytesIO()
    FigureCanvasAgg(figure)
    with mpl.rc_context(RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # browsers have fonts for more letters
        figure.savefig(file, format=kind, **settings)
    return file.getvalue()
