"""Run the examples and notebooks of the documentation, and save what they print and draw.

    python docs/gallery.py                         # everything, about half an hour on two cores
    python docs/gallery.py table compare-honestly  # some examples and notebooks

Each example runs in a folder of its own below docs/_build/gallery, where its race is saved, so that running it again
trains nothing anew. Its output is saved as docs/gallery/NAME.txt, and its figures as docs/gallery/*.svg. The outputs of
cell 3 of a notebook are docs/notebooks/NAME/3.txt and 3.svg.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

import gradprix as gp

DOCS = Path(__file__).parent
STYLE = DOCS / "gallery" / "matplotlibrc"
EXAMPLES = {
    "table": "examples/table.py",
    "images": "examples/images.py",
    "text": "examples/text.py",
    "gpt2": "examples/integrations/gpt2.py",
    "gan": "examples/gan.py",
    "reinforcement": "examples/reinforcement.py",
    "pinn": "examples/pinn.py",
    "own_rule": "examples/own_rule.py",
    "optimizers": "examples/optimizers.py",
    "tune_one": "examples/tune_one.py",
    "cluster": "examples/cluster.py",
    "landscape": "examples/landscape.py",
}
"""Scripts of the gallery by the name of their page."""
TUTORIAL = {
    "new": "gradprix new task.py",
    "plan": "gradprix race task.py --optimizers adamw,nadam,nesterov --plan",
    "race": "gradprix race task.py --optimizers adamw,nadam,nesterov",
    "train": f"{sys.executable} train.py",
}
"""Commands of the tutorial, in their order, by the name of the file with their output."""
FIGURES = ("ranking", "sensitivity")
"""Figures of a race's report that are saved."""
COLOURS = {"fill: #ffffff": "fill: none", "#1d2328": "#767676", "#5b6670": "#767676", "#dfe3e7": "#80808040"}
"""Colours of a report's figures, which are those of a light page, and their replacements."""


def run_example(name: str) -> None:
    """Run one example, and save its output and its figures."""
    folder = DOCS / "_build" / "gallery" / name
    folder.mkdir(parents=True, exist_ok=True)
    style = {"MPLBACKEND": "svg", "MATPLOTLIBRC": str(STYLE), "SOURCE_DATE_EPOCH": "0"}
    command = [sys.executable, str(DOCS.parent / EXAMPLES[name])]
    done = subprocess.run(command, cwd=folder, env=os.environ | style, stdout=subprocess.PIPE, text=True, check=True)
    (DOCS / "gallery" / f"{name}.txt").write_text(done.stdout)
    for figure in folder.glob("*.svg"):
        (DOCS / "gallery" / figure.name).write_text(tidy(figure.read_text()))
    for race in folder.glob("runs/*/race.db"):
        for figure in gp.load(race.parent).export("svg", folder / "figures" / race.parent.name):
            if figure.stem in FIGURES:
                file = DOCS / "gallery" / f"{race.parent.name}-{figure.name}"
                file.write_text(tidy(figure.read_text()))


def run_tutorial() -> None:
    """Run the commands of the tutorial, and save the output of each and the figures of its race."""
    folder, outputs = DOCS / "_build" / "tutorial", DOCS / "tutorial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    outputs.mkdir(exist_ok=True)
    shutil.copy(DOCS.parent / "examples" / "train.py", folder)
    environment = os.environ | {"COLUMNS": "80"}
    for name, command in TUTORIAL.items():
        done = subprocess.run(
            command.split(), cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        (outputs / f"{name}.txt").write_text(done.stdout)
    for figure in gp.load(folder / "runs" / "wine").export("svg", folder / "figures"):
        if figure.stem in FIGURES:
            (outputs / figure.name).write_text(tidy(figure.read_text()))


def tidy(svg: str) -> str:
    """Return an SVG file that is legible on light and dark pages, without its date and spaces at the ends of lines."""
    for colour, other in COLOURS.items():
        svg = svg.replace(colour, other)
    svg = re.sub(r" *<metadata>.*?</metadata>\n", "", svg, count=1, flags=re.DOTALL)
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE)


def run_notebook(name: str) -> None:
    """Run all cells of one notebook, and save the output of each."""
    folder = DOCS / "notebooks" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    notebook = jupytext.read(folder.with_suffix(".md"))
    style = f"plt.style.use({str(STYLE)!r})\n%config InlineBackend.figure_formats = ['svg']"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(f"import matplotlib.pyplot as plt\n{style}"))
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    cells = [cell for cell in notebook.cells[1:] if cell.cell_type == "code"]
    for number, cell in enumerate(cells, 1):
        text = "".join(each.text for each in cell.outputs if each.output_type == "stream" and each.name == "stdout")
        if text:
            (folder / f"{number}.txt").write_text(text)
        figures = [each.data["image/svg+xml"] for each in cell.outputs if "image/svg+xml" in each.get("data", {})]
        for i, figure in enumerate(figures):
            (folder / f"{number}{'-' * bool(i)}{i or ''}.svg").write_text(tidy(figure))


if __name__ == "__main__":
    notebooks = [file.stem for file in sorted((DOCS / "notebooks").glob("*.md"))]
    for name in sys.argv[1:] or ["tutorial", *EXAMPLES, *notebooks]:
        begin = time.monotonic()
        if name == "tutorial":
            run_tutorial()
        elif name in notebooks:
            run_notebook(name)
        else:
            run_example(name)
        print(f"{name}: {time.monotonic() - begin:.0f} s")
