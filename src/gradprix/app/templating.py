"""Jinja2 templates of the app's pages. They render without Flask, so that static pages can be built from them."""

from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

import gradprix

FOLDER = Path(__file__).parent
SHARED = Path(gradprix.__file__).parent / "show" / "templates"
"""Templates, style sheet and script of reports, which the app shares."""

PAGES = {"landscape": "Landscape", "step": "Step", "races": "Races", "claims": "Claims"}
"""Title of each page in the navigation, by its path relative to the root."""

ENVIRONMENT = Environment(
    loader=ChoiceLoader([FileSystemLoader(FOLDER / "templates"), FileSystemLoader(SHARED)]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
VARIABLES = {"root": "/", "pages": PAGES}
"""Variables of every page."""
ENVIRONMENT.globals |= VARIABLES


def render(template: str, page: str, **data: Any) -> str:
    """Render a page to HTML.

    Args:
        template: file name of the template.
        page: key in `PAGES` of the navigation entry that is marked as current.
        data: variables of the template. Strings are escaped. `root` is the URL of the app's root, to which the URLs of
            pages, style sheets and scripts are relative; an empty string makes them relative to the page.
    """
    return ENVIRONMENT.get_template(template).render(page=page, **data)


def layout_variables(template: str, page: str, **data: Any) -> dict[str, Any]:
    """Return the arguments with which `gradprix.show` renders a report within a page of the app.

    Args:
        template: file name of the layout.
        page: key in `PAGES` of the navigation entry that is marked as current.
        data: variables of the layout.
    """
    return {**VARIABLES, "layout": ENVIRONMENT.get_template(template), "page": page, **data}
