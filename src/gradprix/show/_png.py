"""Figures as pictures, for a README or a slide."""

from html import escape
from pathlib import Path

from plotly import graph_objects as go

from gradprix.race import PICTURE, Result

from . import _figures, _page
from ._report import put_beside

WIDTH, SCALE = 1000, 2


def write_picture(result: Result) -> Path:
    """Write a race's ranking as a picture into its folder, all of it or nothing.

    Args:
        result: a race that is kept in a folder.

    Returns:
        The file, a PNG.

    Raises:
        ValueError: when the race is kept in no folder, or where kaleido or the Chrome that it draws with is missing.
    """
    task, metric = (escape(text) for text in (result.record["task"], _page.margin(result.record)))
    title = f"<b>Which optimizer for {task}?</b>  Grey: differences of {metric}, which do not matter"
    return put_beside(result, PICTURE, drawn(_figures.ranking(result.record), title))


def drawn(fig: go.Figure, title: str) -> bytes:
    """A figure as a PNG on white, under a title.

    Raises:
        ValueError: where kaleido or the Chrome that it draws with is missing.
    """
    look = {"text": title, "x": 0.01, "font": {"size": 15}}
    fig.update_layout(title=look, margin_t=80, height=fig.layout.height + 40, paper_bgcolor="white")
    try:
        found: bytes = fig.to_image("png", width=WIDTH, scale=SCALE)
    except (ImportError, ValueError) as error:
        if isinstance(error, ValueError) and "kaleido" not in str(error).lower():
            raise
        raise ValueError("pictures are drawn by kaleido: pip install 'gradprix[png]'.") from error
    except RuntimeError as error:  # kaleido without a browser
        raise ValueError(f"pictures are drawn by Chrome or Chromium, which must be installed: {error}") from error
    return found
