"""View of the page "Step"."""

from .templating import render


def page() -> str:
    """Return the page."""
    return render("placeholder.html.jinja", page="step")
