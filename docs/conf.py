"""Sphinx configuration; scripts/docs builds the documentation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("_ext")))

project = "gradprix"
html_show_copyright = False
extensions = [
    "myst_parser",
    "sphinx_design",
    "gradprix_docs",
    "notebook_docs",
    "site_docs",
    "claims_docs",
    "findings_docs",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
smartquotes = False  # pages quote code, and formulas contain primes
html_theme = "furo"
html_title = "gradprix"
TEMPLATES = "../src/gradprix/show/templates"
html_static_path = ["_static", f"{TEMPLATES}/claims.css", f"{TEMPLATES}/claims.js"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sphinx = False
