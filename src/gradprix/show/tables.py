"""Tables and lists of the terminal, which fit 80 columns."""

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

NARROW, GAP = 80, 2
"""Width of a narrow terminal and of the gap between two columns."""


def make_table(*columns: str, right: tuple[int, ...] = ()) -> Table:
    """Return an empty table with these columns, those with the indices in `right` aligned to the right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i in right else "left")
    return table


def listing(head: Sequence[str], rows: Iterable[tuple[Sequence[str], str]]) -> Group:
    """Return a list of things: for each a line with its name and short facts in columns, and its description below.

    Unlike the rows of a table, lines stay short without a wide terminal.

    Args:
        head: titles of the columns.
        rows: the cells of each line, and the description.
    """
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(head, *(cells for cells, _ in rows), strict=True)]

    def line(cells: Sequence[str]) -> str:
        return (" " * GAP).join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    parts: list[RenderableType] = [Text(line(head), "dim")]
    for cells, about in rows:
        first = Text(line(cells))
        first.stylize("bold", 0, len(cells[0]))
        parts += [first, Padding(Text(about), (0, 0, 0, 4))]
    return Group(*parts)
