"""View of the page "Races"."""

from .templating import render


def page() -> str:
    """Return the page."""
    return render("placeholder.html.jinja", page="races")
