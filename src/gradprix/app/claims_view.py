"""View of the page "Claims"."""

from .templating import render


def page() -> str:
    """Return the page."""
    return render("placeholder.html.jinja", page="claims")
