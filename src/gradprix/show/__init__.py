"""Presentation of results: terminal output, figures and reports, all computed from records."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# These names are imported on first use, because matplotlib is slow to import and terminal output does not need it.
_MODULES = {
    "answer": "terminal",
    "figures": "_export",
    "notebook_cell": "_report",
    "render": "_export",
    "report": "_report",
    "suite_entry_answer": "_suite_entry",
    "suite_entry_page": "_suite_entry",
    "suite_page": "_suite",
    "tune_answer": "_tune",
    "tune_page": "_tune",
    "tune_plan": "_tune",
    "verification_answer": "verification",
    "write_figures": "_export",
    "write_latex": "latex_race",
    "write_picture": "_export",
    "write_report": "_report",
    "write_tune_page": "_tune",
    "write_verified_report": "verification",
}

__all__ = [
    "answer",
    "figures",
    "notebook_cell",
    "render",
    "report",
    "suite_entry_answer",
    "suite_entry_page",
    "suite_page",
    "tune_answer",
    "tune_page",
    "tune_plan",
    "verification_answer",
    "write_figures",
    "write_latex",
    "write_picture",
    "write_report",
    "write_tune_page",
    "write_verified_report",
]

if TYPE_CHECKING:
    from ._export import figures, render, write_figures, write_picture
    from ._report import notebook_cell, report, write_report
    from ._suite import suite_page
    from ._suite_entry import suite_entry_answer, suite_entry_page
    from ._tune import tune_answer, tune_page, tune_plan, write_tune_page
    from .latex_race import write_latex
    from .terminal import answer
    from .verification import verification_answer, write_verified_report


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"gradprix.show.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'gradprix.show' has no attribute {name!r}")
