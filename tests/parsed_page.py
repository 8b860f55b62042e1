"""HTML pages as a browser reads them."""

import re
from html.parser import HTMLParser

HOSTILE = ["<script>alert(1)</script>", "\"&' onload='alert(1)", "</script></style><img src=x>", "{{ 7 * 7 }}"]
"""Names that would change a page that does not escape them."""


class ParsedPage(HTMLParser):
    """Elements of a page with the names of their attributes, and its text without scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, ...]] = []
        self.text = ""
        self.feed(page)
        self.close()
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, *(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem not in ("script", "style"):
            self.text += data
