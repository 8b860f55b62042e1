"""Presentation of results: console, figures and reports, all computed from records."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Imported on first use: plotly is slow to import, and the console does not need it.
_MODULES = {
    "EVIDENCE": "_evidence",
    "answer": "terminal",
    "first_choices": "_evidence",
    "notebook_cell": "_report",
    "report": "_report",
    "suite_page": "_suite",
    "write_picture": "_png",
    "write_report": "_report",
}

__all__ = [
    "EVIDENCE",
    "answer",
    "first_choices",
    "notebook_cell",
    "report",
    "suite_page",
    "write_picture",
    "write_report",
]

if TYPE_CHECKING:
    from ._evidence import EVIDENCE, first_choices
    from ._png import write_picture
    from ._report import notebook_cell, report, write_report
    from ._suite import suite_page
    from .terminal import answer


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"gradprix.show.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'gradprix.show' has no attribute {name!r}")
