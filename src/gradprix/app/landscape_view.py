"""View of the page "Landscape", which the browser computes and draws."""

from dataclasses import asdict
from typing import Any

from flask import Response

from gradprix.show import palette

from .presets import PRESETS
from .templating import render


def page_data(standalone: str | None) -> dict[str, Any]:
    """Return the data that the page's scripts read.

    Args:
        standalone: URL of the page as one file; None if the page is such a file itself.
    """
    return {
        "styles": {name: palette.style(name)._asdict() for name in palette.COLOURS},
        "presets": [asdict(preset) for preset in PRESETS],
        "standalone": standalone,
    }


def page() -> str:
    """Return the page."""
    return render("landscape.html.jinja", page="landscape", data=page_data("/landscape.html"))


def static_file() -> Response:
    """Return the page as one file, which works without the server, for download."""
    from .static_page import POLICY, static_page

    return Response(static_page(), mimetype="text/html", headers={"Content-Security-Policy": POLICY})
