"""Write the generated regions of README.md and CONTRIBUTING.md from committed results.

    python docs/generate.py           # write
    python docs/generate.py --check   # only say which files are out of date

A region is everything between the lines `<!-- generated: NAME -->` and `<!-- end -->`; `docs/regions.md.jinja` has a
macro for each. Pages of the documentation need no such regions: Sphinx fills them in (`docs/_ext/measured_values.py`).
"""

import argparse
import re
import sys
import textwrap
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS / "_ext"))
from measured_values import ENVIRONMENT  # noqa: E402, the pages' own extension is no installed module
from measurement_docs import measurements  # noqa: E402

FILES = (DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md")
REGION = re.compile(r"^(<!-- generated: (\w+) -->)\n.*?^(<!-- end -->)$", re.MULTILINE | re.DOTALL)


def generate(text: str) -> str:
    """Return a text with its regions filled in."""
    macros = ENVIRONMENT.from_string((DOCS / "regions.md.jinja").read_text()).module

    def fill(match: re.Match[str]) -> str:
        content = getattr(macros, match[2])().strip("\n")
        return f"{match[1]}\n{content}\n{match[3]}"

    return REGION.sub(fill, text)


def wrap(text: str) -> str:
    """Return a paragraph, or the items of a list, in lines of at most 120 columns."""
    return "\n".join(
        textwrap.fill(
            " ".join(part.split()),
            120,
            subsequent_indent="  " if part.startswith("* ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for part in re.split(r"\n(?=\* )", text.strip())
    )


ENVIRONMENT.filters["wrap"] = wrap
ENVIRONMENT.globals["measurements_table"] = measurements


def main() -> None:
    """Write the files, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    check = parser.parse_args().check
    stale = [file for file in FILES if generate(file.read_text()) != file.read_text()]
    for file in stale:
        print(f"{file.name} is out of date: python docs/generate.py" if check else f"{file.name} written")
        if not check:
            file.write_text(generate(file.read_text()))
    sys.exit(bool(stale and check))


if __name__ == "__main__":
    main()
