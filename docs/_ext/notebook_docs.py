"""Pages that are notebooks: Markdown with cells of Python, beside the saved output of each cell.

`docs/gallery.py` runs the cells and saves what cell 3 of `notebooks/NAME.md` prints and draws as `notebooks/NAME/3.txt`
and `notebooks/NAME/3.svg`. The site has the notebook itself as well, `notebooks/NAME.ipynb`.
"""

import re
from pathlib import Path

import jupytext
from sphinx.application import Sphinx

FOLDER = "notebooks"
CELL = re.compile(r"^```python\n.*?^```$", re.MULTILINE | re.DOTALL)


def insert_outputs(app: Sphinx, page: str, source: list[str]) -> None:
    """Insert the saved output below each cell, and a link to the notebook below the first paragraph."""
    if Path(page).parent.name != FOLDER:
        return
    name, outputs = Path(page).name, Path(app.srcdir) / page
    cells = iter(range(1, 1 + len(CELL.findall(source[0]))))
    text = CELL.sub(lambda match: match[0] + _output(outputs, next(cells)), source[0])
    link = f'\n\n<p class="download"><a href="{name}.ipynb" download>Download this notebook</a></p>\n\n```python'
    source[0] = text.replace("\n\n```python", link, 1)


def _output(folder: Path, cell: int) -> str:
    """Return the output of a cell as Markdown."""
    text = folder / f"{cell}.txt"
    figures = [*folder.glob(f"{cell}.svg"), *sorted(folder.glob(f"{cell}-*.svg"))]
    shown = f"\n\n```{{code-block}} text\n:class: output\n\n{text.read_text()}```" if text.exists() else ""
    return shown + "".join(f"\n\n![Output of the cell above]({folder.name}/{figure.name})" for figure in figures)


def write_notebooks(app: Sphinx, error: Exception | None) -> None:
    """Write each notebook, without outputs, into the site."""
    if error is None and app.builder.format == "html":
        for file in Path(app.srcdir, FOLDER).glob("*.md"):
            jupytext.write(jupytext.read(file), Path(app.outdir, FOLDER, f"{file.stem}.ipynb"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to the events of reading a page and of the end of a build."""
    app.connect("source-read", insert_outputs)
    app.connect("build-finished", write_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
