"""View of the page "Claims"."""

from gradprix.show.claim_cards import claim_cards

from .templating import render


def page() -> str:
    """Return the page."""
    return render("claims.html.jinja", page="claims", cards=claim_cards())
