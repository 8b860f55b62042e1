"""Jinja2 templates of the HTML pages, in the folder `templates`."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gradprix.utils.wording import format_list

from . import _formatting, palette


def render(template: str, **data: Any) -> str:
    """Render a template to HTML.

    Args:
        template: file name of the template.
        data: variables of the template. Strings are escaped.
    """
    return ENVIRONMENT.get_template(template).render(data)


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.globals |= {
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
