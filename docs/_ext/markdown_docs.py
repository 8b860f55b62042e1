"""Pieces of Markdown: code, tables, links and numbers."""

import re
from collections.abc import Iterable
from typing import Any

from suite_docs import plain, table

__all__ = ["code", "linked", "number", "plain", "table"]


def code(text: str, caption: str = "", emphasized: Iterable[int] = (), kind: str = "formula") -> str:
    """Return a block of preformatted text."""
    lines = [f"```{{code-block}} {'python' if kind == 'signature' else 'text'}", f":class: {kind}"]
    lines += [f":caption: {caption}"] if caption else []
    numbers = ",".join(map(str, emphasized))
    lines += [f":emphasize-lines: {numbers}"] if numbers else []
    return "\n".join([*lines, "", text, "```"])


def number(value: Any) -> str:
    """Format a value as source code."""
    if isinstance(value, tuple | list):
        return f"({', '.join(map(number, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def linked(source: str) -> str:
    """Convert the arXiv and DOI numbers of a source to links."""
    source = re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", source)
    return re.sub(r"doi:(10\.[^\s;,]+\w(?:\)\d+-\d)?)", r"[doi:\1](https://doi.org/\1)", source)
