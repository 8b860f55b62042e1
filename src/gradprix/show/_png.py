"""PNG export of figures."""

from pathlib import Path

from plotly import graph_objects as go

from gradprix.race import PICTURE, Result

from . import _figures
from ._formatting import format_margin
from ._report import write_beside
from .style import escape_label

WIDTH, SCALE = 1000, 2


def write_picture(result: Result) -> Path:
    """Write the ranking of a race as a PNG image into the folder of the race, atomically.

    Args:
        result: race that was saved in a folder.

    Returns:
        Path of the PNG.

    Raises:
        ValueError: if the race was not saved in a folder, or if kaleido or the browser that it needs (Chrome or
            Chromium) is missing.
    """
    task, margin = escape_label(result.record.task), format_margin(result.record.plan.metric)
    title = f"<b>Which optimizer for {task}?</b>  Grey: differences of {margin}, which do not matter"
    return write_beside(result, PICTURE, render_png(_figures.ranking(result.record), title))


def render_png(fig: go.Figure, title: str) -> bytes:
    """Render a figure, with a title and a white background, as a PNG image.

    Raises:
        ValueError: if kaleido or the browser that it needs (Chrome or Chromium) is missing.
    """
    look = {"text": title, "x": 0.01, "font": {"size": 15}}
    fig.update_layout(title=look, margin_t=80, height=fig.layout.height + 40, paper_bgcolor="white")
    try:
        png: bytes = fig.to_image("png", width=WIDTH, scale=SCALE)
    except (ImportError, ValueError) as error:
        if isinstance(error, ValueError) and "kaleido" not in str(error).lower():
            raise
        raise ValueError("pictures are drawn by kaleido: pip install 'gradprix[png]'.") from error
    except RuntimeError as error:  # kaleido without a browser
        raise ValueError(f"pictures are drawn by Chrome or Chromium, which must be installed: {error}") from error
    return png
