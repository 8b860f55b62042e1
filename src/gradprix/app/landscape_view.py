"""View of the page "Landscape"."""

from .templating import render


def page() -> str:
    """Return the page."""
    return render("placeholder.html.jinja", page="landscape")
