"""Layout of the app: header, the four pages, and the HTML document."""

from pathlib import Path
from typing import Any

from dash import Dash, dcc, html

from gradprix.show.style import CSS

from . import claims_page, controls, landscape_page, race_page, step_page
from .state import TABS

DOCUMENT = Path(__file__).with_name("index.html")
"""HTML document of the app. It has the placeholders of Dash, and one for the style sheet shared with reports."""


def layout() -> html.Div:
    """Return the layout with all pages, of which CSS shows the active one."""
    head = html.Header(
        [
            html.B("gradprix"),
            html.Nav(controls.radio_buttons("tab", TABS, className="tabs"), **controls.aria(label="Pages")),
            html.Button("Copy link", id="copy", title="Copy the URL of this view"),
            html.Button("◐", id="theme", title="Colour theme: light, dark or system"),
        ]
    )
    surface = html.Div(
        [
            controls.controls(),
            html.Div(
                [
                    landscape_page.preset_links(),
                    html.Div(id="comment", className="for-landscape"),
                    controls.view_controls(),
                    landscape_page.layout(),
                    step_page.layout(),
                ]
            ),
        ],
        className="for-surface columns",
    )
    parts: list[Any] = [
        dcc.Location(id="address", refresh=False),
        dcc.Store(id="state"),
        dcc.Download(id="download"),
        head,
        html.Main([surface, race_page.layout(), claims_page.layout()]),
    ]
    return html.Div(parts, id="seen", className="app")


def set_layout(app: Dash) -> None:
    """Set the document template and layout of the app."""
    app.index_string = DOCUMENT.read_text("utf-8").replace("{%page_css%}", CSS)
    app.layout = layout
