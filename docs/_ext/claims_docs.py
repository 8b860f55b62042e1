"""Sphinx extension: the cards of the claims, as in the app.

The directive `{claims}` inserts them. Their style sheet and script belong to the page of the claims alone.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from gradprix.show.claim_cards import claim_cards

PAGE = "claims"
"""Name of the page with the cards."""


class Claims(SphinxDirective):
    """Insert the cards of all claims. Its class has the variables that the cards' style sheet needs."""

    def run(self) -> list[nodes.Node]:
        """Return the node of the cards."""
        return [nodes.raw("", f'<div class="claim-page">{claim_cards()}</div>', format="html")]


def add_files(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: nodes.document | None) -> None:
    """Add the style sheet and the script to the page of the claims."""
    if page == PAGE:
        app.add_css_file("claims.css")
        app.add_js_file("claims.js", loading_method="defer")  # a module would need a server


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive and the files."""
    app.add_directive("claims", Claims)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
