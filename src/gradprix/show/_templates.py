"""Jinja2 templates of the HTML pages, in the folder `templates`."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly import graph_objects as go
from plotly.offline import get_plotlyjs

from gradprix.utils.wording import format_list

from . import _formatting, palette

CONFIG = {
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}


def render(template: str, **data: Any) -> str:
    """Render a template to HTML.

    Args:
        template: file name of the template.
        data: variables of the template. Strings are escaped.
    """
    return ENVIRONMENT.get_template(template).render(data)


def plotly_div(fig: go.Figure, name: str) -> Markup:
    """Return a figure as an HTML `div`. The page must include plotly.js itself.

    Args:
        fig: figure.
        name: suffix of the element's id.
    """
    return Markup(fig.to_html(full_html=False, include_plotlyjs=False, config=CONFIG, div_id=f"figure-{name}"))


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters["plotly_div"] = plotly_div
ENVIRONMENT.globals |= {
    "plotly_js": get_plotlyjs,
    "colour": palette.colour,
    "format_batch_size": _formatting.format_batch_size,
    "format_epochs": _formatting.format_epochs,
    "format_distance": _formatting.format_distance,
    "format_integer": _formatting.format_integer,
    "format_list": format_list,
    "format_mean": _formatting.format_mean,
    "format_seconds": _formatting.format_seconds,
    "format_setting": _formatting.format_setting,
    "format_tolerance": _formatting.format_tolerance,
    "format_value": _formatting.format_value,
}
