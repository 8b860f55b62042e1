"""The frame of the app: its head, its four pages, and the document they are sent in."""

from typing import Any

from dash import Dash, dcc, html

from gradprix import claims
from gradprix.show.style import CSS

from . import _claims, _controls, _landscape, _race, _step
from ._state import TABS

# Before anything is drawn, so that a dark page does not flash white.
THEME = "document.documentElement.dataset.theme = localStorage.getItem('gradprix-theme') || 'auto';"
DOCUMENT = f"""<!DOCTYPE html>
<html lang="en">
<head>
{{%metas%}}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{%title%}}</title>
<link rel="icon" href="data:,">
<style>{CSS}</style>
{{%css%}}
<script>{THEME}</script>
</head>
<body>
{{%app_entry%}}
<footer>{{%config%}}{{%scripts%}}{{%renderer%}}</footer>
</body>
</html>"""


def layout() -> html.Div:
    """Everything; which part of it is seen is a matter of style."""
    head = html.Header(
        [
            html.B("gradprix"),
            html.Nav(_controls.choice("tab", TABS, className="tabs"), **_controls.aria(label="Pages")),
            html.Button("Copy link", id="copy", title="The address of what is seen"),
            html.Button("◐", id="theme", title="Light, dark, or as the system has it"),
        ]
    )
    surface = html.Div(
        [
            _controls.controls(),
            html.Div(
                [
                    _landscape.presets(),
                    html.Div(id="comment", className="for-landscape"),
                    _controls.seen_how(),
                    _landscape.layout(),
                    _step.layout(),
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
        html.Main([surface, _race.layout(), _claims.layout(claims.committed()["claims"])]),
    ]
    return html.Div(parts, id="seen", className="app")


def dress(app: Dash) -> None:
    """Give the app its document and its layout."""
    app.index_string = DOCUMENT
    app.layout = layout
