"""Files of the site that are no pages: the landscape view, and the mark of a site without Jekyll.

The site has relative links and needs no server, so that it can be copied to GitHub Pages or opened from a disk.
"""

from pathlib import Path

from sphinx.application import Sphinx

from gradprix.app.static_page import write_static_page


def write_files(app: Sphinx, error: Exception | None) -> None:
    """Write the files at the end of a build."""
    if error is None and app.builder.format == "html":
        Path(app.outdir, ".nojekyll").touch()
        write_static_page(Path(app.outdir, "landscape"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to the end of a build."""
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
