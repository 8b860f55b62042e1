"""Report of a race: a self-contained HTML page generated from the record."""

import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gradprix.race import REPORT, Provenance, RaceRecord, Result
from gradprix.text.answer import answer_lines, format_protocol, format_untuned
from gradprix.text.execution import format_execution_mode
from gradprix.text.figures import format_pairs_title
from gradprix.text.plan import format_options
from gradprix.text.recommendation import format_place
from gradprix.utils.files import write_atomically

from . import (
    _efficiency,
    _hyperparameter_figures,
    _race_figures,
    _reduced_budget,
    _sections,
    _training_figures,
    _tuning_figures,
    _why,
)
from ._formatting import format_margin, reference
from ._templates import render
from .figure import Chart


def write_report(result: Result) -> Path:
    """Write the report of a race into the folder of the race, atomically.

    Args:
        result: result of a race that was saved in a folder.

    Returns:
        Path of the report.

    Raises:
        ValueError: if the race was not saved in a folder.
    """
    folder = None if result.folder is None else str(result.folder)
    page = report(result.record, folder, provenance=result.provenance)
    return write_beside(result, REPORT, page.encode(errors="replace"))


def write_beside(result: Result, name: str, data: bytes) -> Path:
    """Write a file into the folder of a race, atomically.

    Raises:
        ValueError: if the race was not saved in a folder.
    """
    if result.folder is None:
        raise ValueError(
            f"this race was not saved, so there is no folder for its {name}. Pass `out` to the race, or use `report`."
        )
    result.folder.mkdir(parents=True, exist_ok=True)  # that of a bundle is made when something is written
    return write_atomically(result.folder / name, data, 0o644)  # reports are shared: readable by all users


def report(
    record: RaceRecord,
    folder: str | None = None,
    layout: Any = "page.html.jinja",
    provenance: Provenance | None = None,
    verification: dict[str, Any] | None = None,
    **variables: Any,
) -> str:
    """Return the report of a race as a self-contained HTML document.

    Args:
        record: record of a race.
        folder: folder in which the race is saved; None if it is not saved.
        layout: template of the page around the report, with the blocks `title`, `nav` and `body`.
        provenance: bundle from which the race was loaded; None for a race in a folder.
        verification: result of its verification, see `verification_data`; None if it was not verified.
        variables: variables of another layout.
    """
    command = None if folder is None else shlex.join(["gradprix", "export", folder, "--to", "png"])
    return render(
        "report.html.jinja",
        **report_data(record),
        folder=folder,
        export_command=command,
        layout=layout,
        provenance=provenance,
        verification=verification,
        **variables,
    )


def notebook_cell(record: RaceRecord, folder: str | None = None) -> str:
    """Return the answer and the ranking of a race as HTML for a notebook. See `report` for the arguments."""
    data = {
        "answer": answer_lines(record),
        "warnings": _sections.format_warnings(record),
        "protocol": format_protocol(record),
        "chart": _race_figures.ranking(record),
    }
    return render(
        "notebook_cell.html.jinja",
        record=record,
        plan=record.plan,
        metric=record.plan.metric,
        folder=folder,
        link=_link(folder),
        **data,
    )


def _link(folder: str | None) -> str | None:
    """Return the address of the report in a folder, relative to the notebook where possible; None if there is none."""
    if folder is None or not (path := Path(folder).resolve() / REPORT).exists():
        return None
    return quote(path.relative_to(Path.cwd()).as_posix()) if path.is_relative_to(Path.cwd()) else path.as_uri()


def report_data(record: RaceRecord) -> dict[str, Any]:
    """Compute the variables of the report's templates: the record, figures, sentences and tables."""
    artifacts, charts = record.artifacts, draw_charts(record)
    return {
        "record": record,
        "plan": record.plan,
        "metric": record.plan.metric,
        "figures": charts,
        "answer": answer_lines(record),
        "protocol": format_protocol(record),
        "comparisons": _sections.format_comparisons(record),
        "warnings": _sections.format_warnings(record),
        "reference": reference(record),
        "margin": format_margin(record.plan.metric),
        "matrix": None if record.plan.baseline else _race_figures.comparison_table(record),
        "pairs_title": format_pairs_title(record),
        "places": {entry.name: format_place(record, entry) for entry in record.entries},
        "marks": _race_figures.MARKS,
        "tuning_variance": _sections.format_tuning_variance(record),
        "diagnosis": _why.format_diagnosis(record),
        "has_artifacts": bool(artifacts.numbers or artifacts.pictures or artifacts.texts),
        "measures": _sections.format_measures(record),
        "text_tables": _sections.make_text_tables(record),
        "best_by_trials": _efficiency.format_best_by_trials(record),
        "speed": _efficiency.format_speed(record),
        "budget_changes": _reduced_budget.format_budget_changes(record),
        "equal_times": _reduced_budget.format_equal_times(record),
        "execution": format_execution_mode(record.plan.mode),
        "tuning": _sections.format_tuning(record),
        "untuned": format_untuned(record),
        "options": format_options(record.plan.options, record.plan.tune),
        "clip_norm": record.entry(record.best.name).tuned.get("clip_norm", record.plan.options.get("clip_norm")),
        "command": _sections.format_command(record),
    }


def draw_charts(record: RaceRecord) -> dict[str, Chart | None]:
    """Return the figures of the report by name. A figure is None if the record lacks its data."""
    sensitivity = (
        _tuning_figures.sensitivity if record.plan.tunes_learning_rate_only else _hyperparameter_figures.points
    )
    is_tuned = any(entry.tuned for entry in record.entries)
    return {
        "ranking": _race_figures.ranking(record),
        "sensitivity": sensitivity(record) if is_tuned else None,
        "curves": _training_figures.curves(record),
        "moves": None if record.diagnosis is None else _why.moves(record),
        "budget": _efficiency.budget(record) if max(map(len, record.efficiency.expected.values())) > 1 else None,
    }
