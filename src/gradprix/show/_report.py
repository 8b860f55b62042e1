"""Report of a race: a self-contained HTML page generated from the record."""

from collections.abc import Callable
from html import escape
from pathlib import Path

from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from gradprix.race import REPORT, RaceRecord, Result
from gradprix.utils.files import write_atomically

from . import _efficiency, _figures, _page, _training_figures
from ._artifacts import artifacts_section
from ._page import section
from ._sections import notices, protocol, settings, summary_section, usage_section
from ._why import diagnosis_section, moves, read_moves

SECTIONS = {
    "ranking": "Ranking",
    "pairs": "Pairs",
    "sensitivity": "Learning rates",
    "curves": "Curves",
    "why": "Why",
    "after": "Artifacts",
    "less": "Budget and speed",
    "settings": "Settings",
    "protocol": "Protocol",
    "again": "Use it, run it again",
}

CONFIG = {
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}
# `to_html` drops an empty server URL, and its default is a public server.
SCRIPTS = f"{get_plotlyjs()}\nPlotly.setPlotConfig({{plotlyServerURL: '', showSendToCloud: false}});"


def write_report(result: Result) -> Path:
    """Write the report of a race into its folder, atomically.

    Args:
        result: race that was saved in a folder.

    Returns:
        Path of the report.

    Raises:
        ValueError: if the race was not saved in a folder.
    """
    folder = None if result.folder is None else str(result.folder)
    return write_beside(result, REPORT, report(result.record, folder).encode(errors="replace"))


def write_beside(result: Result, name: str, data: bytes) -> Path:
    """Write a file into the folder of a race, atomically.

    Raises:
        ValueError: if the race was not saved in a folder.
    """
    if result.folder is None:
        raise ValueError(
            f"this race was not saved, so there is no folder for its {name}. Pass `out` to the race, or use `report`."
        )
    return write_atomically(result.folder / name, data, 0o644)  # reports are shared: readable by all users


def report(record: RaceRecord, folder: str | None = None) -> str:
    """Return the complete report as HTML.

    Args:
        record: record of a race.
        folder: folder in which the race is saved, if any.
    """
    name = escape(record.task)
    candidates: list[tuple[str, str, Callable[[RaceRecord], go.Figure], Callable[[RaceRecord], str], int]] = [
        ("ranking", "Ranking", _figures.ranking, _page.read_ranking, 640),
        ("pairs", "All comparisons", _figures.pairs, _page.read_pairs, 130 + 62 * len(record.entries)),
        (
            "sensitivity",
            "Sensitivity to the learning rate",
            _training_figures.sensitivity,
            _training_figures.read_sensitivity,
            760,
        )
        if record.plan.tunes_learning_rate_only
        else (
            "sensitivity",
            "Tuned hyperparameters",
            _training_figures.points,
            _training_figures.read_points,
            300 * len(record.plan.tune),
        ),
        ("curves", "Learning curves", _training_figures.curves, _training_figures.read_curves, 400),
    ]
    # With a baseline, the ranking already shows every comparison.
    figures = [row for row in candidates if row[0] != "pairs" or record.plan.baseline is None]
    artifacts, has_diagnosis = artifacts_section(record), record.diagnosis is not None
    omitted = ["pairs"] * (len(figures) < len(candidates)) + ["after"] * (not artifacts) + ["why"] * (not has_diagnosis)
    sections = {key: text for key, text in SECTIONS.items() if key not in omitted}
    body = [
        f'<h1>Which optimizer for {name}?</h1><p class="about">{escape(record.about)}</p>',
        summary_section(record),
        notices(record),
        *(
            section(key, title, figure(key, draw(record), caption(record), w))
            for key, title, draw, caption, w in figures
        ),
        *([section("why", "Why", diagnosis_section(record), moves_figure(record))] if has_diagnosis else []),
        *([section("after", "Artifacts", artifacts)] if artifacts else []),
        section("less", "Tuning budget and speed", budget_figure(record), _efficiency.pace(record)),
        section("settings", "Tuned settings", settings(record)),
        section("protocol", "Method and limitations", protocol(record)),
        section("again", "Use it, run it again", usage_section(record, folder)),
    ]
    return _page.page(f"gradprix: {name}", sections, SCRIPTS, "\n".join(body))


def moves_figure(record: RaceRecord) -> str:
    """Return the figure of update sizes and directions during training."""
    return figure("moves", moves(record), read_moves(record), 760)


def budget_figure(record: RaceRecord) -> str:
    """Return the figure of smaller tuning budgets; empty if there was only one trial."""
    if max(map(len, record.efficiency.expected.values())) < 2:
        return ""
    return figure("less", _efficiency.budget(record), _efficiency.read_budget(record), 480)


def figure(name: str, fig: go.Figure, caption: str, width: int) -> str:
    """Return a figure with its caption; it scrolls horizontally on pages narrower than `width` pixels."""
    div = fig.to_html(full_html=False, include_plotlyjs=False, config=CONFIG, div_id=f"figure-{name}")
    drawing = f'<div class="wide"><div style="min-width:{width}px">{div}</div></div>'
    return f"<figure><figcaption>{caption}</figcaption>{drawing}</figure>"
